"""Texts in other words: the same message; tags, names, addresses, smileys and negations stay as they are."""

# ruff: noqa: RUF001  (Chinese texts have marks of their own)

import random
import re
from collections import Counter
from pathlib import Path

import pytest

import data_utils
from data_utils.augment.edits import apply_edits
from data_utils.augment.english import FILLERS, NEGATIONS
from data_utils.augment.lexicon import common_words, load_lexicon, parse_lexicon
from data_utils.augment.text import change_text

TWEETS = [
    "RT @bbc_news: Photos of the amazing kids who bought a huge cake because they like it 😀 #happy #Photo http://t.co/amazing",
    "i love this movie, thank you so much @movie_star!! #movie #LoveIt https://t.co/photo :D <3 &amp; more",
    "Looking for a gift for everyone? Check out our shop www.amazing-gifts.com 🎁🇬🇧 #gift",
    "the abandoned house near the forest is gloomy and it looks like someone was there #abandoned 👩‍👩‍👧",
    "Feeling exhausted today... my bike was destroyed, and the cops were awful about it @cops $photo mail me@photo.com",
    "this is probably the most beautiful picture of the year, congrats to the author ❤️ #picture",
]
CHINESE = [
    "今天和朋友一起去看电影，非常开心！#非常开心# @非常 http://t.cn/photo",
    "昨天晚上的晚饭真的很美味[哈哈] #美味 😀",
    "刚刚在机场丢了照片，好难过 but the photo was amazing",
    "谢谢妈妈，因为你我终于到达了家乡",
]
KEPT = re.compile(
    r"#\w+#?|@\w+|\$\w+|https?://[!-~]+|www\.\S+|\S+@\S+|&\w+;|RT|:D|<3|[^\w\s.,!?，。！#@$:;/<&'\"’()\[\]]+"
)


def negations(text):
    words = re.findall(r"[a-z']+", text.lower().replace("’", "'"))
    return Counter(word for word in words if word in NEGATIONS or word.endswith("n't"))


def test_words_of_one_repeated_letter_get_no_typo():
    for seed in range(60):
        changed = change_text("it is so hmmmmm and it is so aaaaah", random.Random(seed))
        assert changed is None or ("hmmmmm" in changed.text and "aaaaah" in changed.text)


@pytest.mark.parametrize("text", TWEETS)
def test_english_changes_but_tags_names_addresses_and_smileys_stay(text):
    versions = {change_text(text, random.Random(seed)).text for seed in range(60)}
    assert text not in versions
    assert len(versions) > 20
    for version in versions:
        assert KEPT.findall(version) == KEPT.findall(text)
        assert abs(len(version.split()) - len(text.split())) <= 10


@pytest.mark.parametrize("text", [*TWEETS, *CHINESE])
def test_changes_tell_all_that_differs(text):
    for seed in range(30):
        changed = change_text(text, random.Random(seed))
        rest, told = changed.text, changed.changes
        for change in reversed(told):
            kind, _, what = change.partition(": ")
            if kind == "filler":
                assert what.capitalize() in FILLERS
                rest = rest.replace(f"{what} ", "", 1)
                continue
            old, new = what.split(" -> ")
            place = [match.start() for match in re.finditer(rf"(?<![#@$/.A-Za-z]){new}(?![A-Za-z])", rest)][-1]
            rest = rest[:place] + old + rest[place + len(new) :]
            if kind == "typo":
                assert (old[0], old[-1]) == (new[0], new[-1])
                assert not Counter(old) - Counter(new)
        assert rest.lower() == text.lower()


@pytest.mark.parametrize("text", CHINESE)
def test_chinese_changes_by_words_of_the_lexicon_only(text):
    options = load_lexicon("zh").options
    for seed in range(30):
        changed = change_text(text, random.Random(seed))
        assert changed.text != text
        assert KEPT.findall(changed.text) == KEPT.findall(text)
        assert re.findall(r"[ -~]+", changed.text) == re.findall(r"[ -~]+", text)
        for change in changed.changes:
            old, new = change.removeprefix("word: ").split(" -> ")
            assert new in options[old]


@pytest.mark.parametrize(
    "text",
    [
        "I am not very happy and this movie isn't amazing, never beautiful here; no photos please",
        "we don’t like the awful picture because nobody bought it, cant buy the gift without cash there",
    ],
)
def test_negations_and_what_they_deny_stay(text):
    denied = re.findall(r"(?:not|isn't|never|no|don’t|nobody|cant|without)\W+\w+", text)
    for seed in range(60):
        changed = change_text(text, random.Random(seed))
        assert negations(changed.text) == negations(text)
        assert re.findall(r"(?:not|isn't|never|no|don’t|nobody|cant|without)\W+\w+", changed.text) == denied


@pytest.mark.parametrize("text", ["我不喜欢这个", "没那么漂亮", "开心不开心？", "别担心"])
def test_chinese_negations_and_what_they_deny_stay(text):
    assert all(change_text(text, random.Random(seed)) is None for seed in range(20))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "#photo #happy @movie http://t.co/photo",
        "WHY IS THE PHOTO AMAZING",
        "Le mec n'a pas bougé en 6 ans, la photo est belle",
        "Mientras tanto en Galeras Rock",
        "今日の写真 今天 非常 開心",
        "you are so amaz… ",
        "#photo-movie http://…",
    ],
)
def test_what_cannot_be_changed_is_left(text):
    assert all(change_text(text, random.Random(seed)) is None for seed in range(20))


@pytest.mark.parametrize(
    ("text", "never"),
    [
        (
            "this is an amazing day for a huge party",
            r"\ba (?:amazing|awesome|incredible|enormous)|\ban (?:fantastic|huge|massive)",
        ),
        ("we are happy birthday happy people here", r"happy bday"),
        ("the movie Angry Birds is here in New York today", r"Mad|mad"),
        ("Furious 7 was on the screen today @x", r"Enraged|Incensed"),
        ("I think of it as my very own photo", r"believe|really own"),
    ],
)
def test_articles_names_and_fixed_expressions_stay_right(text, never):
    for seed in range(60):
        assert not re.search(never, change_text(text, random.Random(seed)).text)


def test_first_word_keeps_its_capital_and_longest_entry_wins():
    found = {change_text("Thank you so much for the day", random.Random(seed)).text for seed in range(40)}
    assert {text.split(" for")[0] for text in found} >= {"Thanks so much", "Many thanks"}
    assert not any(text.startswith("thank") for text in found)


def test_same_state_of_the_draws_gives_the_same_text():
    for text in TWEETS + CHINESE:
        assert change_text(text, random.Random("a")) == change_text(text, random.Random("a"))


@pytest.mark.parametrize(("language", "fewest"), [("en", 250), ("zh", 150)])
def test_lexicons_have_no_negations_and_as_many_groups_as_promised(language, fewest):
    lexicon = load_lexicon(language)
    source = (Path(data_utils.__file__).parent / "augment" / "words" / f"{language}.txt").read_text(encoding="utf-8")
    groups = [line for line in source.splitlines() if not line.startswith("#") and re.search("[|>]", line)]
    assert len(groups) >= fewest
    for entry, options in lexicon.options.items():
        assert entry == entry.lower() == " ".join(entry.split())
        assert entry not in options
        for text in options and (entry, *options):
            assert not negations(text)
            assert not set(text.replace("非常", "")) & set("不没无别未勿莫")


def test_common_words_are_words():
    assert len(common_words()) > 100
    assert all(re.fullmatch(r"[a-z']+", word) for word in common_words())


def test_lexicon_format():
    lexicon = parse_lexicon("# note\na b | c\nd > e | f\nkept\n\n", by_word=True)
    assert lexicon.options == {"a b": ("c",), "c": ("a b",), "d": ("e", "f"), "kept": ()}
    assert lexicon.longest == 2
    with pytest.raises(ValueError, match="'c' stands in two lines"):
        parse_lexicon("a | c\nc > d", by_word=True)


def test_no_edits_give_the_text_itself():
    assert apply_edits("text", []).text == "text"
