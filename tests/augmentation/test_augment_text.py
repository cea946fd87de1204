"""Texts in other words: the same message; tags, names, addresses and negations stay as they are."""

# ruff: noqa: RUF001  (Chinese texts have marks of their own)

import random
import re

import pytest

from data_utils.augment.text import change_text, load_words

TWEETS = [
    "RT @bbc_news: Photos of the amazing kids who bought a huge cake because they like it 😀 #happy #Photo http://t.co/amazing",
    "Looking for a gift for everyone? Check out our shop www.amazing-gifts.com 🎁🇬🇧 #gift",
    "the abandoned house near the forest is gloomy and it looks like someone was there #abandoned 👩‍👩‍👧",
    "Feeling exhausted today... my bike was destroyed, and the cop was awful about it @cops $photo mail me@photo.com",
    "congrats to the author of the most beautiful picture of the year, thanks <3 &amp; more ❤️ #picture :D",
]
CHINESE = [
    "今天和朋友一起去看电影，非常开心！#非常开心# @非常 http://t.cn/photo",
    "昨天晚上的晚饭真的很美味[哈哈] #美味 😀",
    "刚刚在机场丢了照片，好难过 but the photo was amazing",
]
KEPT = re.compile(
    r"#\w+#?|@\w+|\$\w+|https?://[!-~]+|www\.\S+|\S+@\S+|&\w+;|RT|:D|<3|[^\w\s.,!?，。！#@$:;/<&'\"’()\[\]]+"
)


@pytest.mark.parametrize("text", [*TWEETS, *CHINESE])
def test_one_to_three_words_change_and_tags_names_addresses_and_smileys_stay(text):
    options = load_words("zh" if text in CHINESE else "en")
    versions = set()
    for seed in range(40):
        changed, told = change_text(text, random.Random(seed))
        assert (changed, told) == change_text(text, random.Random(seed))
        assert KEPT.findall(changed) == KEPT.findall(text)
        assert 1 <= len(told) <= 3
        for old, new in (change.split(" -> ") for change in told):
            assert new.lower() in options[old.lower()]
            assert new[0].isupper() == old[0].isupper()
        versions.add(changed)
    assert text not in versions
    assert len(versions) > 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "#photo #happy @movie http://t.co/photo",
        "WHY IS THE PHOTO AMAZING",
        "Furious 7 was on the screen today @x",
        "Le mec n'a pas bougé en 6 ans, la photo est belle",
        "今日の写真 今天 非常 開心",
        "the photo… was so amazing...",
        "you are so amazing... http://t.co",
        "the photo-album of photo_albums",
        "I am not so very amazing, isn't amazing, never beautiful",
        "we don’t like awful photos, nobody bought it, he cant buy the gift",
        "it is not, not, not, not a very amazing",
        "我不喜欢这个",
        "没那么漂亮",
        "开心不开心？",
        "别担心",
        "十分钟之内",
    ],
)
def test_what_should_not_be_changed_is_left(text):
    assert all(change_text(text, random.Random(seed)) is None for seed in range(20))


@pytest.mark.parametrize(
    ("text", "never"),
    [
        (
            "it is an amazing day for a huge party",
            r"\ba (?:amazing|awesome|incredible|enormous)|\ban (?:fantastic|huge)",
        ),
        ("the movie Angry Birds is here", "Mad|mad"),
        ("this is a movie of the Amazing Spider", r"Awesome|Fantastic|Incredible"),
    ],
)
def test_articles_and_names_stay_right(text, never):
    for seed in range(60):
        assert not re.search(never, change_text(text, random.Random(seed))[0])


@pytest.mark.parametrize(("language", "fewest"), [("en", 100), ("zh", 70)])
def test_lists_are_of_lower_case_without_negations(language, fewest):
    options = load_words(language)
    assert sum(map(bool, options.values())) > fewest
    for entry, others in options.items():
        assert entry not in others
        for text in (entry, *others) if others else ():
            assert text == text.lower() == " ".join(text.split())
            assert not set(text.replace("非常", "")) & set("不没无别未勿莫")
            assert not re.search(r"\b(?:no|not|never|without)\b|n't", text)
