"""Lists that aren't lines of guid,tag, and lists made to do harm: one sentence that names what they are."""

import time

import pytest

from data_utils.sources.quarantine import Quarantine
from data_utils.sources.records import read_records
from modeling.errors import InputError

LABELS = ["negative", "neutral", "positive"]
ROWS = [(str(number), LABELS[number % 3]) for number in range(12)]


@pytest.fixture
def read(tmp_path):
    """Read a list given as text or bytes."""

    def run(source, **options):
        path = tmp_path / "list.txt"
        path.write_bytes(source.encode() if isinstance(source, str) else source)
        return read_records(path, labels=LABELS, quarantine=Quarantine(), **options)

    return run


def write(line, rows=ROWS):
    return "".join(line.format(guid=guid, tag=tag) + "\n" for guid, tag in rows)


@pytest.mark.parametrize("for_prediction", [False, True])
@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("{guid}\t{tag}", "parts its cells by tabs"),
        ("{guid}\t{tag},0.9", "parts its cells by tabs"),
        ("{guid};{tag}", "parts its cells by semicolons"),
        ("{guid}; other", "parts its cells by semicolons"),
        ("{guid}|{tag}", "parts its cells by vertical bars"),
        ("{guid}\uff0c{tag}", "parts its cells by full-width commas"),
        ("{guid}\u3001{tag}", "parts its cells by ideographic commas"),
        ("{guid}\u060c {tag}", "parts its cells by Arabic commas"),
        ("| {guid} | {tag} |", "parts its cells by vertical bars"),
        ("{guid}: {tag}", "parts its cells by colons"),
        ("{guid} {tag}", "parts its cells by spaces"),
        ("{guid} null", "parts its cells by spaces"),
        ("{tag},{guid}", "labels like 'positive' come first, and guids like '11' behind the comma; swap them"),
    ],
)
def test_rows_of_another_form_are_named(read, line, named, for_prediction):
    with pytest.raises(InputError, match=named):
        read(write(line), for_prediction=for_prediction)
    few = write("{guid},{tag}") + write(line, [("a", "neutral"), ("b", "neutral")])
    assert len(read(few, for_prediction=for_prediction)) >= 12  # a few such rows are faults of their own


def test_swapped_columns_of_other_labels_are_named(read):
    moods = ("joy", "fear")
    source = "label,guid\n" + "".join(f"{moods[number % 2]},{100 + number}\n" for number in range(12))
    with pytest.raises(InputError, match=r"swap them"):
        read(source)


def test_a_list_of_guids_alone_can_be_predicted(read):
    assert [record.guid for record in read("a b\nc d\n", for_prediction=True)] == ["a b", "c d"]
    assert len(read("guid\n12\n13\n", for_prediction=True)) == 2


@pytest.mark.parametrize("columns", [1, 3])
def test_the_label_file_of_mvsa_is_named(read, columns):
    header = "ID" + "\ttext,image" * columns
    rows = [f"{number}" + "\tpositive,neutral" * columns for number in range(5)]
    with pytest.raises(InputError, match=r"is MVSA's labelResultAll.txt, .* make one label of the two"):
        read("\n".join([header, *rows]))


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_a_list_of_wide_characters_without_mark_is_read(read, codec):
    records = [(record.guid, record.label) for record in read(write("{guid},{tag}").encode(codec))]
    assert records == ROWS


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
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(InputError, match="is not a file"):
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
    assert [entry.reason for entry in pairs.quarantine] == [
        "invalid_guid",
        "unknown_label",
        "malformed_row",
        "malformed_row",
        "invalid_guid",
        "invalid_guid",
    ]
    assert len(load(folder, for_prediction=True).dataset) == 76


def test_long_labels_are_cut_in_the_message(read):
    with pytest.raises(InputError) as error:
        read(f"1,{'joy' * 100_000}\n2,{'fear' * 100_000}\n")
    assert len(str(error.value)) < 2000
