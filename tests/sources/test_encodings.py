"""Texts in the encodings that people's computers write: decided by the whole data set, told, and overridden."""

# ruff: noqa: RUF001  (texts have marks of their own)

import csv
import json
import random

import pytest
from encoded_sentences import CASES, SENTENCES

from data_utils.prepare.pair_files import PairList
from data_utils.sources.arguments import DataArguments
from data_utils.sources.encodings import decode_text, find_encoding
from modeling.errors import InputError


def draw_texts(language: str, count: int) -> list[str]:
    rng = random.Random(language)
    return [f"{' '.join(rng.sample(SENTENCES[language], 2))} {number}" for number in range(count)]


@pytest.mark.parametrize(("codec", "language"), CASES)
def test_encoding_is_found_by_sixty_texts(codec, language):
    sources = [text.encode(codec, "ignore") for text in draw_texts(language, 60)]
    chosen = find_encoding(sources)
    for source in sources:
        assert decode_text(source, chosen)[0] == source.decode(codec)


@pytest.mark.parametrize(("codec", "language"), [case for case in CASES if case != ("cp1254", "turkish")])
def test_encoding_is_found_by_one_text(codec, language):
    """Of three sentences; Turkish in one may be Icelandic."""
    source = ", ".join(SENTENCES[language][:3]).encode(codec, "ignore")
    assert decode_text(source)[0] == source.decode(codec)


@pytest.mark.parametrize("ending", "stmdv")
@pytest.mark.parametrize("before", ["don", "I", "it", "Zoë".encode("cp1252").decode("latin-1")])
def test_curly_apostrophe_between_letters_is_no_ideograph(before, ending):
    source = f"{before}\x92{ending}".encode("latin-1")
    assert decode_text(source) == (source.decode("cp1252"), "cp1252")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("naïve …".encode(), ("naïve …", "utf-8")),
        ("\ufeffhello".encode(), ("hello", "utf-8")),
        ("等等…".encode("gb18030"), ("等等…", "gb18030")),
        (b"caf\xe9", ("café", "cp1252")),
        ("等 naïve".encode("utf-16"), ("等 naïve", "utf-16-le")),
        (b"\xfe\xff\x00h\x00i", ("hi", "utf-16-be")),
        ("hi".encode("utf-32"), ("hi", "utf-32-le")),
        ("\ufeff好".encode("utf-32-be"), ("好", "utf-32-be")),
        (b"\xff\xfe\xff", ("яюя", "cp1251")),
        (b"", ("", "utf-8")),
        (b"\0", ("\0", "utf-8")),
        (b"hello\0", ("hello\0", "utf-8")),
        (b"\0\0hello\0\0\0", ("\0\0hello\0\0\0", "utf-8")),
        (b"a\0b and c\0d", ("a\0b and c\0d", "utf-8")),
        (b"bell\x07 and more", ("bell\x07 and more", "utf-8")),
        (b"h\0i\0", ("hi", "utf-16-le")),
        (b"\0h\0i", ("hi", "utf-16-be")),
        ("two\x0blines".encode("utf-16-le"), ("two\x0blines", "utf-16-le")),
        ("two\x0blines".encode("utf-16-be"), ("two\x0blines", "utf-16-be")),
        ("nul\0 é".encode("utf-32-be"), ("nul\0 é", "utf-32-be")),
        ("привет".encode("utf-16-le"), ("привет", "utf-16-le")),
        (b"a" * 5000 + b"\x01" + b"b", ("a" * 5000 + "\x01b", "utf-8")),
        (("x" * 5000).encode("utf-16-be"), ("x" * 5000, "utf-16-be")),
        (b"x" * 100_000 + b"don\x92t", ("x" * 100_000 + "don’t", "cp1252")),
    ],
)
def test_one_text_is_decoded_as(source, expected):
    assert decode_text(source) == expected
    assert expected[0].encode(expected[1]) in (source, source.removeprefix(b"\xef\xbb\xbf"), source[2:], source[4:])


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
def test_few_words_without_a_nul_are_in_the_utf_16_of_the_other_texts(codec):
    sources = [f"{text} 1".encode(codec) for text in SENTENCES["traditional"]] + ["轉發".encode(codec)]
    assert find_encoding(sources) == codec
    assert find_encoding([*sources, *("caf\xe9 d\xe9j\xe0".encode("cp1252") for _ in range(3))]) == "cp1252"


@pytest.mark.parametrize(
    ("codec", "text"),
    [
        *(("gb18030", text) for text in ("图片 1", "图3,positive", "我的图片", "图1\n图2\n图3\n图4\n" * 9)),
        *(("utf-8", text) for text in ("\u0562\u0561\u0580\u0565\u0582", "10 \xb5m \xe0 \u03a3")),
        *(("utf-8", text) for text in ("\u04d9\u049b\u04a3 \xe9", "\u0259z\u0259l", "\u03bc\xe9", "\u0434\xe9")),
    ],
)
def test_chinese_words_that_fit_the_rules_of_utf_8_are_chinese_and_rare_letters_stay(codec, text):
    assert decode_text(text.encode(codec)) == (text, codec)


@pytest.mark.parametrize(("codec", "language"), [("cp1252", "english"), ("cp1251", "russian"), ("big5", "traditional")])
def test_most_texts_being_utf_8_changes_nothing(codec, language):
    texts = draw_texts(language, 40)
    sources = [text.encode("utf-8" if number % 5 else codec, "ignore") for number, text in enumerate(texts)]
    chosen = find_encoding(sources)
    found = [decode_text(source, chosen) for source in sources]
    assert [text for text, _ in found] == texts
    assert {encoding for number, (_, encoding) in enumerate(found) if number % 5} == {"utf-8"}


def test_texts_that_do_not_fit_the_chosen_encoding_are_read_otherwise():
    sources = [text.encode("gb18030") for text in draw_texts("chinese", 20)] + [b"caf\xe9"]
    chosen = find_encoding(sources)
    assert chosen == "gb18030"
    assert decode_text(sources[-1], chosen) == ("café", "cp1252")
    assert decode_text(b"\x81\x8d caf\xe9", "cp1252") == ("\x81\x8d café", "latin-1")
    assert find_encoding([b"plain", "schön".encode()]) is None


@pytest.mark.parametrize("language", ["russian", "chinese", "french", "korean"])
def test_utf_8_that_was_cut_within_a_character_stays_utf_8(language, make_pairs, load):
    texts = draw_texts(language, 30)
    sources = [text.encode() for text in texts]
    for number in range(0, 30, 3):
        sources[number] = sources[number] + "é€"[number % 2].encode()[:1]
    folder = make_pairs([(str(number), "positive", source) for number, source in enumerate(sources)])
    pairs = load(folder, text_cleaning="none")
    found = pairs.dataset["text"][:]
    assert pairs.text_encoding == "utf-8"
    for number, text in enumerate(found):
        assert text == sources[number].decode("utf-8", "replace").strip()
    assert {encoding for _, encoding, _ in pairs.quarantine.decoded} == {"utf-8 (damaged)"}
    assert decode_text(b"caf\xe9", "utf-8") == ("café", "cp1252")


def test_more_texts_than_are_looked_at_give_the_same_answer():
    sources = [text.encode("koi8_r") for text in draw_texts("russian", 60)]
    assert find_encoding(source for _ in range(60) for source in sources) == "koi8_r"


@pytest.fixture
def folder(make_pairs):
    """60 pairs, every second of whose texts is Windows-1252."""
    sources = [text.encode(("cp1252", "utf-8")[row % 2]) for row, text in enumerate(draw_texts("english", 60))]
    return make_pairs([(str(row), "positive", source) for row, source in enumerate(sources)], folder="odd")


def test_decision_is_told_with_a_sample_and_each_text_is_a_row(folder, load, tmp_path):
    pairs = load(folder, text_cleaning="none")
    assert pairs.text_encoding == "cp1252"
    assert pairs.dataset["text"][:] == draw_texts("english", 60)
    assert "30 texts are not UTF-8 and were decoded as cp1252 (encodings.csv), like 0: " in pairs.quarantine.summary()
    pairs.quarantine.save(tmp_path / "quarantine.csv")
    with (tmp_path / "encodings.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["guid"], row["encoding"]) for row in rows] == [(str(number), "cp1252") for number in range(0, 60, 2)]
    for row in rows:
        assert row["text"].strip(".") in draw_texts("english", 60)[int(row["guid"])]
        assert not row["text"].isascii()


def test_flag_overrides_the_decision_and_has_a_cache_of_its_own(folder, load):
    chosen = load(folder)
    assert load(folder, text_encoding="cp1252").dataset["text"][:] == chosen.dataset["text"][:]
    other = load(folder, text_encoding="cp1251")
    assert other.text_encoding == "cp1251"
    assert "I don’t think" in " ".join(other.dataset["text"][:])
    assert load(folder, text_encoding="gb18030").dataset["text"][:] != chosen.dataset["text"][:]
    assert load(folder).dataset["text"][:] == chosen.dataset["text"][:]


@pytest.mark.parametrize("codec", ["iso2022_jp", "hz", "utf-7"])
def test_flag_takes_encodings_of_seven_bits(codec, make_pairs, load):
    language = "chinese" if codec == "hz" else "japanese"
    texts = draw_texts(language, 5)
    folder = make_pairs([(str(number), "positive", text.encode(codec, "ignore")) for number, text in enumerate(texts)])
    found = load(folder, text_encoding=codec, text_cleaning="none").dataset["text"][:]
    assert found == [text.encode(codec, "ignore").decode(codec) for text in texts]


@pytest.mark.parametrize(
    "name", ["windows-1253x", "base64", "rot13", "undefined", "", "a\0b", "x" * 9000, 1252, "zlib"]
)
def test_unknown_encoding_is_one_sentence(name):
    with pytest.raises(InputError, match=r"no text encoding that Python knows; name one like cp1252"):
        DataArguments(data_dir="data", text_encoding=name)


def test_tweets_of_the_real_data_are_read_as_gb18030(shared):
    sources = [path.read_bytes() for path in sorted((shared / "data" / "project5" / "data").glob("*.txt"))]
    chosen = find_encoding(sources)
    assert chosen == "gb18030"
    for source in sources:
        try:
            expected = source.decode("utf-8-sig")
        except UnicodeDecodeError:
            expected = source.decode("gb18030")
        assert decode_text(source, chosen)[0] == expected


def test_run_keeps_the_decision_for_later_predictions(folder, run_train, tmp_path, evaluate_main):
    """A list with one text, which alone would be read as another language."""
    run, screen = run_train("--max_steps", "1", data_dir=folder, name="run")
    assert "were decoded as cp1252 (encodings.csv), like" in screen
    assert "text_encoding: cp1252" in (run / "config.yaml").read_text()
    assert len((run / "encodings.csv").read_text().splitlines()) == 31
    odd = "çok İyi şey ðþ".encode("cp1252", "ignore") + "сегодня отличная погода".encode("cp1251")
    (folder / "data" / "0.txt").write_bytes(odd)
    (folder / "list.txt").write_text("guid,tag\n0,null\n")
    evaluate_main(run, "--predict", folder / "list.txt", "--output", tmp_path / "answers.txt")
    assert (tmp_path / "answers.encodings.csv").read_text().startswith("guid,encoding,text\n0,cp1252,")
    (folder / "data" / "0.txt").write_text("plain")
    evaluate_main(run, "--predict", folder / "list.txt", "--output", tmp_path / "answers.txt")
    assert not (tmp_path / "answers.encodings.csv").exists()
    (folder / "data" / "0.txt").write_bytes(odd)

    from evaluation.predict.loaded_run import load_run

    asked = PairList(folder / "list.txt", folder)
    found = load_run(run, data_dir=str(folder)).load_rows(asked, for_prediction=True)
    assert found.quarantine.decoded[0][1] == "cp1252"
    assert json.dumps(found.dataset[0]["text"]) == json.dumps(" ".join(odd.decode("cp1252").split()))
