"""The tokenizer trained here, over scripts: marks tell texts apart, and no script's sentence is one long word."""

import unicodedata

import pytest
from transformers import AutoTokenizer

from data_utils.prepare.tokens import train_wordpiece

FORMS = ("NFC", "NFD")
# Texts that differ in marks alone.
PAIRS = {
    "japanese": ("かき が ほしい", "がき が ほしい"),
    "half-width": ("ﾊﾝ", "ﾊﾞﾝ"),
    "thai tone": ("ขาวมาก", "ข่าวมาก"),
    "thai vowel": ("กินปลา", "กันปลา"),
    "hindi": ("कल दिन", "कल दीन"),
    "hindi nukta": ("बड़ा", "बडा"),
    "bengali": ("মন", "মনে"),
    "tamil": ("கல்", "கால்"),
    "french": ("il a été tué", "il a été tue"),
    "german": ("schon gut", "schön gut"),
    "spanish": ("el papa", "el papá"),
    "vietnamese": ("ma", "mả"),
    "czech": ("rad", "řád"),
    "turkish": ("on gun", "ön gün"),
    "polish": ("laska", "łąska"),
    "russian": ("все", "всё"),
    "ukrainian": ("мии", "мій"),
    "greek": ("η", "ή"),
    "arabic": ("علم", "عَلَم"),
    "hebrew": ("שבת", "שַׁבָּת"),
    "khmer": ("កា", "កិ"),
    "lao": ("ຂາວ", "ຂ່າວ"),
    "myanmar": ("ကာ", "ကား"),
    "tibetan": ("ལམ", "ལོམ"),
    "korean": ("가나", "각나"),
}
# Sentences without a blank, of more letters than WordPiece takes as one word.
UNSPACED = {
    "thai": "วันนี้อากาศดีมากฉันไปตลาดกับเพื่อนแล้วเราก็กินข้าวด้วยกัน" * 4,
    "khmer": "ថ្ងៃនេះអាកាសធាតុល្អណាស់ខ្ញុំទៅផ្សារជាមួយមិត្តភក្តិ" * 4,
    "lao": "ມື້ນີ້ອາກາດດີຫຼາຍຂ້ອຍໄປຕະຫຼາດກັບໝູ່" * 5,
    "myanmar": "ဒီနေ့ရာသီဥတုကောင်းတယ်ကျွန်တော်ဈေးသွားတယ်" * 4,
    "hiragana": "きょうはとてもいいてんきなのでともだちとさんぽにいきました" * 5,
    "katakana": "スーパーマーケットデパートレストランコーヒーショップ" * 5,
    "chinese": "今天天气很好我和朋友一起去公园散步然后吃饭" * 6,
    "rare ideographs": "𠮷野家々〇" * 30,
    "bopomofo": "ㄅㄆㄇㄈ" * 30,
    "javanese": "ꦲꦏ꧀ꦱꦫꦗꦮ" * 20,
}


def train(texts, **options):
    return train_wordpiece(texts, vocab_size=3000, max_length=64, **options)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("language", PAIRS)
def test_texts_that_differ_in_a_mark_have_other_tokens_whether_composed_or_not(language, form):
    tokenizer = train([unicodedata.normalize(form, text) for text in PAIRS[language]])
    first, second = (
        [tokenizer(unicodedata.normalize(each, text))["input_ids"] for each in FORMS] for text in PAIRS[language]
    )
    assert first[0] == first[1]
    assert second[0] == second[1]
    assert first[0] != second[0]
    assert tokenizer.unk_token_id not in first[0] + second[0]


@pytest.mark.parametrize("script", UNSPACED)
def test_a_sentence_without_blanks_is_no_unknown_word(script):
    sentence = UNSPACED[script]
    assert len(sentence) > 100
    tokenizer = train([sentence[: len(sentence) // 2]])
    found = tokenizer(sentence, return_offsets_mapping=True)
    assert tokenizer.unk_token_id not in found["input_ids"]
    offsets = found["offset_mapping"][1:-1]
    assert [start for start, _ in offsets] == [0, *(end for _, end in offsets[:-1])], "each sign stands once, in order"
    assert "".join(sentence[start:end] for start, end in offsets) == sentence
    assert tokenizer.decode(found["input_ids"], skip_special_tokens=True).replace(" ", "") == sentence


def test_marks_stay_with_their_sign_and_signs_are_shared_between_sentences():
    tokenizer = train(["ข่าว", "ขาว"])
    assert tokenizer.tokenize("ข่าว") == ["ข่", "า", "ว"]
    assert tokenizer.tokenize("วขา") == ["ว", "ข", "า"]


def test_scripts_with_blanks_are_parted_at_blanks():
    words = "добрый день καλημέρα नमस्ते 안녕하세요 مرحبا שלום hello"
    tokenizer = train([words])
    assert tokenizer.tokenize(words) == words.split()
    assert tokenizer.tokenize("hello世界かなabc")[:1] == ["hello"]


def test_lowercase_is_a_choice_that_leaves_accents(tmp_path):
    texts = ["École ÉCOLE école ecole Straße ΣΑΣ"]
    small, large = train(texts), train(texts, lowercase=False)
    ids = {word: small(word)["input_ids"] for word in ("École", "ÉCOLE", "école", "ecole")}
    assert ids["École"] == ids["ÉCOLE"] == ids["école"] != ids["ecole"]
    assert len({tuple(large(word)["input_ids"]) for word in ids}) == 4
    large.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)("École ecole")["input_ids"] == large("École ecole")["input_ids"]
