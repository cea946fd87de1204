"""List files: what is a row, a header, a label, a guid; what is left out and why; what is no list is named."""

import time
from collections import Counter

import pytest

from data_utils.sources.quarantine import Quarantine
from data_utils.sources.records import is_valid_guid, read_records
from modeling.errors import InputError

LABELS = ["negative", "neutral", "positive"]
ROWS = [(str(number), LABELS[number % 3]) for number in range(12)]


@pytest.fixture
def read(tmp_path):
    """Read a list given as text or bytes; returns the records and the quarantine's entries."""

    def run(source, labels=LABELS, **options):
        path = tmp_path / "list.txt"
        path.write_bytes(source.encode() if isinstance(source, str) else source)
        quarantine = Quarantine()
        return read_records(path, labels=labels, quarantine=quarantine, **options), quarantine.entries

    return run


@pytest.mark.parametrize(
    "source",
    [
        "guid,tag\n1,positive\n007,neutral\n",
        "1,positive\n007,neutral",
        "\ufeffGUID,Tag\r\n1,positive\r\n\r\n007,neutral\r\n",
        'id,sentiment\n "1" , "positive" \n\n007 ,neutral\n   \n',
        "tweet,label\n1,positive\n007,neutral\n",
        "1,positive\r007,neutral\r",
    ],
)
def test_list_styles_give_the_same_rows(read, source):
    records, entries = read(source)
    assert [(record.guid, record.label) for record in records] == [("1", "positive"), ("007", "neutral")]
    assert not entries


@pytest.mark.parametrize(
    ("source", "labels", "guids"),
    [
        ("1,label\n2,tag\n", ["label", "tag"], ["1", "2"]),
        ("guid,label\n1,label\n", ["label", "tag"], ["1"]),
        ("id,positive\n2,neutral\n", LABELS, ["id", "2"]),
        ("等,positive\n".encode("gb18030"), LABELS, ["等"]),
    ],
)
def test_first_row_is_a_header_only_where_it_names_columns(read, source, labels, guids):
    assert [record.guid for record in read(source, labels=labels)[0]] == guids


def test_row_numbers_are_lines_of_the_file(read):
    records, _ = read("guid,tag\n\n1,positive\n\n\n2,neutral\n")
    assert [record.row for record in records] == [3, 6]


def test_training_leaves_out_what_it_cannot_use_and_says_why(read):
    source = (
        "1,positive\n2,Positive\n3,null\n4\n5,neutral,x\n1,negative\n../6,neutral\n,neutral\n7,\n1,positive\n8,NULL\n"
    )
    records, entries = read(source)
    assert [(record.row, record.guid) for record in records] == [(1, "1")]
    assert [(entry.row, entry.reason, entry.action) for entry in entries] == [
        (2, "unknown_label", "dropped"),
        (3, "no_label", "dropped"),
        (4, "malformed_row", "dropped"),
        (5, "malformed_row", "dropped"),
        (6, "duplicate_guid", "dropped"),
        (7, "invalid_guid", "dropped"),
        (8, "invalid_guid", "dropped"),
        (9, "no_label", "dropped"),
        (10, "duplicate_guid", "dropped"),
        (11, "no_label", "dropped"),
    ]
    details = {entry.row: entry.detail for entry in entries}
    assert "did you mean 'positive'?" in details[2]
    assert "another label ('positive', here 'negative')" in details[6]
    assert "another label" not in details[10]


def test_prediction_keeps_every_row(read):
    source = "guid,tag\n1,null\n2\n../3,null\n1,null\n4,great\n5,neutral\n6,neutral,x\n"
    records, entries = read(source, for_prediction=True)
    assert [record.guid for record in records] == ["1", "2", "../3", "1", "4", "5", "6"]
    assert [record.label for record in records] == [None, None, None, None, None, "neutral", None]
    assert [is_valid_guid(record.guid) for record in records] == [True, True, False, True, True, True, True]
    assert Counter(entry.reason for entry in entries) == {
        "invalid_guid": 1,
        "duplicate_guid": 1,
        "unknown_label": 1,
        "malformed_row": 1,
    }


def test_open_quote_spoils_its_own_line_only(read):
    records, entries = read('1,positive\n"2,positive\n3,neutral\n')
    assert [record.guid for record in records] == ["1", "3"]
    assert [(entry.row, entry.reason) for entry in entries] == [(2, "malformed_row")]


def test_guid_with_a_path_is_invalid():
    assert all(map(is_valid_guid, ("1", "a b", "..a", "1.5", "等", "12_t1")))
    wrong = ("", ".", "..", "/etc/passwd", "../1", "a/b", "a/", "a\\b", "..\\1", "a\0b", "./1", "\0")
    assert not any(map(is_valid_guid, wrong))


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("", "holds no rows"),
        ("\n \n", "holds no rows"),
        ("guid,tag\n", "holds no rows"),
        ("1,pos\n2,neg\n3,null\n", r"2 unknown_label.*'pos' \(1\), 'neg' \(1\); allowed: n.*`--labels neg pos`[.]$"),
        ("1,null\n2,null\n", "--predict"),
        ("1\n2\n", "row 1, '1': 1 cell; expected guid,tag"),
        ('{"guid": "1", "tag": "negative"}\n{"guid": "2"}\n', "is a JSON document .* lines of guid,tag"),
    ],
)
def test_list_without_a_usable_row_is_one_clear_error(read, source, named):
    with pytest.raises(InputError, match=named):
        read(source)


def test_missing_list_or_something_else_in_its_place(tmp_path):
    (tmp_path / "device").symlink_to("/dev/zero")
    for name, named in (("none.txt", "does not exist"), ("", "is not a file"), ("device", "is not a file")):
        path = tmp_path / name
        with pytest.raises(InputError, match=named):
            read_records(path, labels=LABELS, quarantine=Quarantine())


def test_quarantine_writes_rows_in_order_and_sums_up(tmp_path):
    quarantine = Quarantine()
    quarantine.add(9, "b,c", reason="missing_text", action="masked", detail="no b.txt")
    quarantine.add(2, "a", reason="missing_text", action="masked")
    quarantine.notes.append("3 texts are not UTF-8")
    quarantine.save(tmp_path / "quarantine.csv")
    lines = (tmp_path / "quarantine.csv").read_text().splitlines()
    assert lines == [
        "row,guid,reason,action,detail",
        "2,a,missing_text,masked,",
        '9,"b,c",missing_text,masked,no b.txt',
    ]
    assert quarantine.summary() == "missing_text: 2 masked\n3 texts are not UTF-8"
    assert Quarantine().summary() == ""
    with pytest.raises(InputError, match="Cannot write"):
        quarantine.save(tmp_path / "quarantine.csv" / "quarantine.csv")


def write(line, rows=ROWS):
    return "".join(line.format(guid=guid, tag=tag) + "\n" for guid, tag in rows)


@pytest.mark.parametrize("for_prediction", [False, True])
@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("{guid}\t{tag}", r"parts its cells by '\\t'; write lines of guid,tag, with a comma"),
        ("{guid}\t{tag},0.9", r"parts its cells by '\\t'"),
        ("{guid};{tag}", "parts its cells by ';'"),
        ("{guid}; other", "parts its cells by ';'"),
        ("{guid}|{tag}", r"parts its cells by '\|'"),
        ("{guid}\uff0c{tag}", "parts its cells by '\uff0c'"),
        ("{guid}\u3001{tag}", "parts its cells by '\u3001'"),
        ("{guid}\u060c {tag}", "parts its cells by '\u060c'"),
        ("| {guid} | {tag} |", r"parts its cells by '\|'"),
        ("{guid}: {tag}", "parts its cells by ':'"),
        ("{guid} {tag}", "parts its cells by ' '"),
        ("{guid} null", "parts its cells by ' '"),
        ("{guid}\0,{tag}", "holds a NUL in most rows"),
        ("{tag},{guid}", "labels like 'positive' come first, and guids like '11' behind the comma; swap them"),
    ],
)
def test_rows_of_another_form_are_named(read, line, named, for_prediction):
    with pytest.raises(InputError, match=named):
        read(write(line), for_prediction=for_prediction)
    few = write("{guid},{tag}") + write(line, [("a", "neutral"), ("b", "neutral")])
    assert len(read(few, for_prediction=for_prediction)[0]) >= 12  # a few such rows are faults of their own


def test_lists_of_mvsa_and_of_swapped_columns_of_other_labels_are_named(read):
    swapped = "label,guid\n" + "".join(f"{('joy', 'fear')[number % 2]},{100 + number}\n" for number in range(12))
    with pytest.raises(InputError, match=r"swap them"):
        read(swapped)
    for columns in (1, 3):
        rows = ["ID" + "\ttext,image" * columns, *(f"{row}" + "\tpositive,neutral" * columns for row in range(5))]
        with pytest.raises(InputError, match=r"is MVSA's labelResultAll.txt, .* make one label of the two"):
            read("\n".join(rows))


def test_a_list_of_guids_alone_can_be_predicted(read):
    for source, guids in (("a b\nc d\n", ["a b", "c d"]), ("guid\n12\n13\n", ["12", "13"])):
        assert [record.guid for record in read(source, for_prediction=True)[0]] == guids


@pytest.mark.parametrize("for_prediction", [False, True])
def test_a_list_of_wide_characters_with_half_of_one_is_refused(read, for_prediction):
    source = write("{guid},{tag}").encode("utf-16-le") + b"\n"  # as a program adds that writes bytes
    with pytest.raises(InputError, match=r"holds a NUL in most rows.*save it as UTF-8"):
        read(source, for_prediction=for_prediction)


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_a_list_of_wide_characters_without_mark_is_read(read, codec):
    records, _ = read(write("{guid},{tag}").encode(codec))
    assert [(record.guid, record.label) for record in records] == ROWS


@pytest.mark.parametrize(
    ("source", "named"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n", "git lfs pull"),
        (b"<!DOCTYPE html>\n<html><body>Sign in, please</body></html>\n", "an HTML page"),
        (b"PK\x03\x04\x14\0\x06\0", "a ZIP archive or an office document"),
        (b"PAR1\x15\x04", "a Parquet file"),
        (bytes(5000), "nothing but zeros"),
    ],
)
def test_another_file_in_the_place_of_a_list_is_named(read, source, named):
    for for_prediction in (False, True):
        with pytest.raises(InputError, match=named):
            read(source, for_prediction=for_prediction)


def test_a_list_of_200_gigabytes_is_refused_unread(tmp_path):
    path = tmp_path / "list.txt"
    path.touch()
    with path.open("r+b") as file:
        file.truncate(200 * 2**30)
    with pytest.raises(InputError, match=r"214,748,364,800 bytes; at most 268,435,456"):
        read_records(path, labels=LABELS, quarantine=Quarantine())


def test_rows_of_megabytes_are_faults_of_their_own(make_pairs, load):
    rows = [(str(number), "neutral") for number in range(70)]
    folder = make_pairs(rows)
    long = "x" * 2_000_000
    faulty = [f"{long},neutral", f"a,{long}", long, f'"{long}', f"{long}\0,neutral", "\u20ac" * 100 + ",neutral"]
    with (folder / "train.txt").open("a", encoding="utf-8") as file:
        file.write("\n".join(faulty) + "\n")
    start = time.perf_counter()
    pairs = load(folder)
    assert time.perf_counter() - start < 10
    assert len(pairs.dataset) == 70
    expected = "invalid_guid unknown_label malformed_row malformed_row invalid_guid invalid_guid"
    assert " ".join(entry.reason for entry in pairs.quarantine) == expected
    assert len(load(folder, for_prediction=True).dataset) == 76


def test_long_labels_are_cut_in_the_message(read):
    with pytest.raises(InputError) as error:
        read(f"1,{'joy' * 100_000}\n2,{'fear' * 100_000}\n")
    assert len(str(error.value)) < 2000
