"""Cleaning and the grouping key of texts."""

import pytest

from modeling.text import clean_text, text_key


@pytest.mark.parametrize(
    ("raw", "report", "tweet"),
    [
        ("RT @user_1: so  good\n#happy https://t.co/aB1?x=@y end", "RT : so good #happy end", None),
        ("RT @user_1: so  good\n#happy https://t.co/aB1 end", None, "RT @user: so good #happy http end"),
        ("mail me at joe@mail.com now", "mail me at joe@mail.com now", "mail me at joe@mail.com now"),
        ("hi @a@b.social @ noon", "hi .social @ noon", "hi @user.social @ noon"),
        ("(@name) @名字 \uff20x", "( )", "(@user) @user @user"),
        ("see www.example.com, awww. cute", "see awww. cute", "see http awww. cute"),
        ("好看http://t.cn/abc很好", "好看 很好", "好看 http 很好"),
        ("cut off http://t.c…", "cut off", "cut off http"),
        ("cut off http…", "cut off", "cut off http"),
        ("HTTP://X.Y/z loud", "loud", "http loud"),
        ("a\r\nb\t c\x00d\u3000e", "a b c d e", "a b c d e"),
        ("http://t.co/1 @me", "", "http @user"),
        ("\ufeff \u200b\x00 ", "", ""),
    ],
)
def test_cleaning_modes(raw, report, tweet):
    if report is not None:
        assert clean_text(raw, "report") == report
    if tweet is not None:
        assert clean_text(raw, "tweet") == tweet
        assert clean_text(tweet, "tweet") == tweet


def test_none_only_strips_the_ends():
    assert clean_text("\x00 \n @a  http://x.y\n b \x00\n", "none") == "@a  http://x.y\n b"


def test_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="report, tweet, none"):
        clean_text("a", "Report")


def test_key_groups_what_says_the_same():
    assert text_key("So GOOD  http://t.co/1") == text_key("@me so good")
    assert text_key("so good") != text_key("so bad")
    assert text_key("http://t.co/1") == text_key("@me http://t.co/2")
    assert text_key(" \n\0") is None
    assert text_key("") is None
