"""Large losses stop a training and say what would mend them; of those of a prediction one is told."""

import unicodedata

import pytest
from PIL import Image
from shard_reading import POINTER
from sources.test_data_pictures import encode

from modeling.errors import InputError

MOODS = ("anger", "fear", "joy", "sad", "trust", "neutral", "positive")


def refuse(load, folder, **options):
    """The one sentence with which a training is refused; with --allow_data_loss the same data load."""
    with pytest.raises(InputError) as error:
        load(folder, **options)
    assert len(load(folder, **options, allow_data_loss=True).dataset)
    return str(error.value)


def test_labels_that_were_not_asked_for_are_counted_and_the_flag_is_shown(make_pairs, load):
    folder = make_pairs([(str(number), MOODS[number % 7]) for number in range(70)])
    message = refuse(load, folder)
    assert "50 of 70 rows" in message
    assert all(f"'{mood}' (10)" in message for mood in MOODS)
    assert "`--labels neutral positive anger fear joy sad trust`. To train" in message
    assert len(load(folder, labels=list(MOODS)).dataset) == 70


def test_the_flag_shows_the_spelling_of_the_list_in_the_asked_order_and_quoted(make_pairs, load):
    moods = ("negative", "neutral", "very good")
    folder = make_pairs([(str(number), moods[number % 3]) for number in range(60)])
    message = refuse(load, folder, labels=["Very Good", "NEGATIVE", "neutral"])
    assert "40 of 60 rows" in message
    assert "`--labels 'very good' negative neutral`." in message


def test_labels_in_another_spelling_of_unicode_are_the_labels(make_pairs, load):
    whole, pieces = ["n\u00e9gatif", "tr\u00e8s bon"], ["ne\u0301gatif", "tre\u0300s bon"]
    folder = make_pairs([(str(number), whole[number % 2]) for number in range(6)])
    for labels in (whole, pieces):
        assert load(folder, labels=labels).dataset["label"][:] == [0, 1] * 3


def test_a_tenth_of_odd_labels_goes_into_the_quarantine(make_pairs, load):
    rows = [(str(number), "positive") for number in range(18)]
    pairs = load(make_pairs([*rows, ("18", "Positive"), ("19", "great")]))
    assert [entry.reason for entry in pairs.quarantine] == ["unknown_label"] * 2
    with pytest.raises(InputError, match="3 of 21 rows"):
        load(make_pairs([*rows, ("18", "Positive"), ("19", "great"), ("20", "great")], folder="more"))


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("{},null", "no_label.*a training row needs a label.*Label them"),
        ("{},positive,0.7", "malformed_row.*3 cells; expected guid,tag.*Mend"),
        ("images/{},positive", "invalid_guid.*a plain file name.*without folder and ending"),
        ("0,neutral", "duplicate_guid.*first in row 1.*Write each guid once"),
    ],
)
def test_rows_lost_for_one_reason(make_pairs, load, line, named):
    folder = make_pairs([(str(number), "positive") for number in range(17)], header=False)
    with (folder / "train.txt").open("a") as file:
        file.writelines(line.format(100 + number) + "\n" for number in range(3))
    message = refuse(load, folder)
    assert "3 of 20 rows" in message
    with pytest.raises(InputError, match=named):
        load(folder)


def test_labels_of_a_prediction_are_told_and_no_row_is_dropped(make_pairs, load, caplog):
    pairs = load(make_pairs([(str(number), "joy") for number in range(9)]), for_prediction=True)
    assert len(pairs.dataset) == 9
    assert "9 of 9 rows" in caplog.text
    assert "--" not in caplog.text  # it is no training's flag that would help


def heif(brand):
    return b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1"


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (POINTER, "git lfs pull"),
        (b"/annex/objects/SHA256E-s1--0.jpg\n", "git annex get"),
        (b"\n<!DOCTYPE html><html><body>404", "an HTML page"),
        (b"<title>Not found</title>", "an HTML page"),
        ("<html><body>Gone".encode("utf-16"), "an HTML page"),
        (b"404: Not Found", "a text that begins with '404: Not Found'"),
        (b'{"error": "not found"}', "a JSON document"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "an XML document"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing; convert it"),
        (heif(b"heic"), "a HEIC picture; convert it to JPEG or PNG"),
        (heif(b"avif"), "an AVIF picture; convert it"),
        (heif(b"isom"), "a film"),
        (b"%PDF-1.7", "a PDF document"),
        (bytes(100), "nothing but zeros"),
    ],
)
def test_what_stands_in_the_place_of_pictures_is_named(make_pairs, load, content, named):
    folder = make_pairs([(str(number), "positive", f"text {number}", content) for number in range(4)])
    message = refuse(load, folder)
    assert "4 of 4 rows have no picture that can be used (4 unreadable_image)" in message
    assert named in message
    assert "--fusion text_only" in message
    pairs = load(folder, needs=("text",))
    assert [named in entry.detail for entry in pairs.quarantine] == [True] * 4


def test_texts_that_are_pointers_or_absent_are_no_texts(make_pairs, load):
    folder = make_pairs([(str(number), "positive", (POINTER, None, b" ")[number % 3]) for number in range(6)])
    message = refuse(load, folder)
    assert "6 of 6 rows have no text that can be used (2 unreadable_text, 2 missing_text, 2 empty_text)" in message
    assert "--fusion image_only" in message
    assert len(load(folder, needs=("image",)).dataset) == 6


@pytest.mark.parametrize("content", ["JPEG", "PNG", "GIF", "WEBP", b"%PDF-1.4\n\0", b"\x1f\x8b\x08\0\0"])
def test_texts_that_are_pictures_or_documents_are_no_texts(make_pairs, load, photo, content):
    content = encode(photo(1), content) if isinstance(content, str) else content
    folder = make_pairs([(str(number), "positive", content) for number in range(6)])
    assert "6 of 6 rows have no text that can be used (6 unreadable_text)" in refuse(load, folder)


def test_texts_that_begin_like_pictures_or_documents_are_texts(make_pairs, load):
    texts = ["GIF89a is older than you", "%PDF-1.7 opens nowhere", "PK\x03\x04 is how a ZIP begins"]
    pairs = load(make_pairs([(str(number), "positive", text) for number, text in enumerate(texts)]))
    assert pairs.dataset["text_present"][:] == [True] * 3


@pytest.mark.parametrize("ending", [".Jpg", ".heic"])
def test_a_picture_of_an_ending_that_is_not_read_is_converted_or_renamed(make_pairs, load, ending):
    folder = make_pairs([(str(number), "positive", f"text {number}", None) for number in range(3)])
    for number in range(3):
        (folder / "data" / f"{number}{ending}").write_bytes(b"x")
    hint = f"there is 0{ending}, an ending that is not read: convert it to JPEG or PNG, or rename it"
    assert f"no 0.jpg (or .jpeg, .png, .webp); {hint}" in refuse(load, folder)


def test_a_modality_missing_in_half_of_the_rows_is_trained_without(make_pairs, load):
    rows = [("1", "positive", "a"), ("2", "positive", "b"), ("3", "neutral", None), ("4", "neutral", None)]
    assert len(load(make_pairs(rows)).dataset) == 4
    assert "3 of 5 rows have no text" in refuse(load, make_pairs([*rows, ("5", "neutral", None)], folder="more"))


@pytest.mark.parametrize(
    ("listed", "stored"),
    [
        ("{}", "0000{}"),
        ("{}.0", "{}"),
        ("{}.jpg", "{}"),
        ("Tweet{}", "tweet{}"),
        ("\u200b{}", "{}"),
        ("'{}", "{}"),
        ("\uff11{}", "1{}"),
        ('"1,0{}"', "10{}"),
        ("+{}", "{}"),
        ("a{}.", "a{}"),
        ("a%20{}", "a {}"),
        ("a-{}", "a_{}"),
        ("\u2764{}", "\u2764\ufe0f{}"),
        ("1234567890123{}00", "1234567890123{}67"),
    ],
)
def test_near_names_are_told_and_not_taken(make_pairs, load, listed, stored):
    rows = [(stored.format(number), "positive") for number in range(10, 30)]
    folder = make_pairs(rows)
    names = [listed.format(number) if number < 15 else stored.format(number) for number in range(10, 30)]
    (folder / "train.txt").write_text("".join(f"{name},positive\n" for name in names))
    message = refuse(load, folder)
    assert "5 of 20 rows have neither a text nor a picture" in message
    shown = names[0].strip('"')
    assert f"no {shown}.txt; there is {rows[0][0]}.txt" in message
    assert "spreadsheets drop leading zeros" in message
    few = make_pairs([(str(number), "positive") for number in range(100, 110)], folder="few")
    (few / "train.txt").write_text("0100,positive\n" + "".join(f"{number},positive\n" for number in range(101, 110)))
    details = [entry.detail for entry in load(few).quarantine]
    assert details == ["no 0100.txt; there is 100.txt", "no 0100.jpg (or .jpeg, .png, .webp); there is 100.jpg"]


def test_a_number_that_a_spreadsheet_shortened_is_named(make_pairs, load):
    folder = make_pairs([(f"12345678901234567{number}", "positive") for number in range(8)])
    (folder / "train.txt").write_text("".join(f"1.2345{number}E+17,positive\n" for number in range(8)))
    with pytest.raises(InputError, match="a spreadsheet has shortened this number"):
        load(folder)
    (folder / "train.txt").write_text("1.23E+17,positive\n" * 8)
    with pytest.raises(InputError, match=r"7 of 8 .* row 2, '1.23E\+17': first in row 1; a spreadsheet has shortened"):
        load(folder)


@pytest.mark.parametrize(("listed", "stored"), [("NFC", "NFD"), ("NFD", "NFC")])
@pytest.mark.parametrize("for_prediction", [False, True])
def test_names_that_differ_in_unicode_alone_are_found(make_pairs, load, listed, stored, for_prediction):
    names = [f"caf\u00e9 {number} \u304c" for number in range(5)]
    folder = make_pairs([(unicodedata.normalize(stored, name), "positive", f"text {name}") for name in names])
    lines = [f"{unicodedata.normalize(listed, name)},positive\n" for name in names]
    (folder / "train.txt").write_text("".join(lines), encoding="utf-8")
    pairs = load(folder, for_prediction=for_prediction)
    assert not len(pairs.quarantine)
    assert pairs.dataset["guid"][:] == [unicodedata.normalize(listed, name) for name in names]
    assert pairs.dataset["text"][:] == [f"text {name}" for name in names]
    assert all(pairs.dataset["image_present"][:])


def test_two_twins_are_told_and_none_is_taken(make_pairs, load):
    twins = ["\u1e69", "s\u0323\u0307", "s\u0307\u0323"]  # one letter with two dots: whole, and its dots in both orders
    folder = make_pairs([(name, "positive", f"text {name}") for name in twins[1:]])
    (folder / "train.txt").write_text(f"{twins[0]},positive\n", encoding="utf-8")
    with pytest.raises(InputError, match="2 files have this name in other spellings of Unicode"):
        load(folder)


def test_one_guid_in_two_spellings_of_unicode_is_a_repeated_row(make_pairs, load):
    rows = [(str(number), "positive") for number in range(10)]
    pairs = load(make_pairs([("\u00e9", "positive"), ("e\u0301", "negative"), *rows]))
    assert [(entry.row, entry.reason) for entry in pairs.quarantine] == [(3, "duplicate_guid")]


def test_a_sound_picture_is_taken_where_an_empty_one_lies_beside_it(make_pairs, load, photo):
    folder = make_pairs([("z", "positive", "words", b""), ("y", "positive", "words", b"broken"), ("x", "positive")])
    photo("z").save(folder / "data" / "z.png")
    photo("y").save(folder / "data" / "y.png")
    pairs = load(folder)
    assert pairs.dataset["image_present"][:] == [True, False, True]
    assert pairs.quarantine.notes == ["1 files were passed over for others of their guid, like z.jpg for z.png"]
    assert [entry.detail for entry in pairs.quarantine] == [
        "y.jpg: not a picture in a known format; there is y.png as well"
    ]


def test_drop_leaves_out_what_was_told_to_be_dropped(make_pairs, load):
    rows = [(str(number), "positive", None if number < 4 else f"text {number}") for number in range(10)]
    assert len(load(make_pairs(rows), on_bad_pair="drop").dataset) == 6
    picture = Image.new("RGB", (8, 8))
    rows = [(str(number), "positive", None if number < 6 else f"text {number}", picture) for number in range(10)]
    assert "6 of 10 rows have no text" in refuse(load, make_pairs(rows, folder="more"), on_bad_pair="drop")
