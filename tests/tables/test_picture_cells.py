"""Pictures of a table's column: paths, bytes, base64, structs and lists, each found or told what is wrong with it."""

import base64
import time

import pyarrow as pa
import pytest
from datasets import Dataset, Image
from PIL import Image as PillowImage
from tables.table_files import NOISE, PICTURE, TEXT, encode_picture, locate

from data_utils.prepare.pair_files import FileState, PictureCell
from data_utils.sources.quarantine import Reason
from data_utils.tables.table import Table
from modeling.errors import InputError


def test_every_way_to_give_a_picture_gives_the_same_pixels(make_table, load_pixels, tmp_path):
    (tmp_path / "a.png").write_bytes(PICTURE)
    (tmp_path / "b.png").write_bytes(NOISE)
    lines = "\n".join(TEXT[start : start + 60] for start in range(0, len(TEXT), 60))
    url_safe = base64.urlsafe_b64encode(PICTURE).decode().rstrip("=")
    struct = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    ways = [
        make_table(
            ["a.png", f"{tmp_path}/a.png", TEXT, lines, url_safe, f" data:image/png;base64,{TEXT}\n"], name="text"
        ),
        make_table(["a.png"], pa.large_string(), "large"),
        make_table(["a.png", "a.png"], pa.dictionary(pa.int32(), pa.string()), "words"),
        make_table([PICTURE, PICTURE, PICTURE], name="bytes"),
        make_table([PICTURE], pa.large_binary(), "large_bytes"),
        make_table([{"bytes": PICTURE, "path": "b.png"}, {"bytes": None, "path": "a.png"}], struct, "structs"),
        make_table([{"bytes": None, "path": "a.png"}], name="paths"),
    ]
    found = [pixels for table in ways for pixels in load_pixels(table)]
    assert len(found) == 16
    assert {len(pixels) for pixels in found} == {3 * 32 * 32}
    assert len(set(found)) == 1

    long = base64.b64encode(NOISE).decode()
    assert len(long) > 4096
    assert load_pixels(make_table([long, "b.png"])) == load_pixels(make_table([NOISE, NOISE], name="noise"))


def test_a_name_without_its_ending_is_found_where_no_file_has_the_bare_name(make_table, tmp_path):
    for name in ("7.jpg", "7.png", "8", "8.jpg", "v1.2.PNG", "915657464401580032.webp"):
        (tmp_path / name).write_bytes(PICTURE)
    (tmp_path / "9.jpg").mkdir()

    def find(values):
        found = locate(make_table(values))
        return [each.path.rpartition("/")[2] if isinstance(each, FileState) else each.reason for each in found]

    assert find(["7", "8", "v1.2", "9"]) == ["7.jpg", "8", "v1.2.PNG", Reason.MISSING_IMAGE]
    assert find([7, 915657464401580032, None]) == ["7.jpg", "915657464401580032.webp", Reason.MISSING_IMAGE]


def test_an_image_of_datasets_is_read_undecoded(load_pixels, tmp_path):
    dataset = Dataset.from_dict({"image": [{"bytes": PICTURE, "path": None}, None]}).cast_column("image", Image())
    dataset.save_to_disk(str(tmp_path / "saved"))
    pixels, fault = load_pixels(Table("saved", Dataset.load_from_disk(str(tmp_path / "saved")), ""))
    assert len(pixels) == 3 * 32 * 32
    assert fault == (Reason.MISSING_IMAGE, "the cell is empty")


def test_rows_that_were_selected_keep_their_pictures(make_table, load_pixels, tmp_path):
    (tmp_path / "b.png").write_bytes(NOISE)
    table = make_table([{"bytes": PICTURE, "path": ""}, {"bytes": None, "path": "b.png"}, {"bytes": NOISE, "path": ""}])
    pictures = load_pixels(table)
    picked = table._replace(dataset=table.dataset.select([2, 0, 1]))
    assert load_pixels(picked) == [pictures[row] for row in (2, 0, 1)]


def test_what_is_wrong_with_a_row_is_told(make_table, load_pixels, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "A.png").write_bytes(PICTURE)
    texts = [
        None,
        "",
        " ",
        "NaN",
        "gone.jpg",
        "A%2Epng",
        "B",
        "~/a.png",
        "nul\0.png",
        "notes",
        "x" * 300,
        "file:///A.png",
    ]
    missing = {row for row, found in enumerate(load_pixels(make_table(texts))) if found[0] == Reason.MISSING_IMAGE}
    assert missing == set(range(len(texts))) - {9, 10}
    told = load_pixels(
        make_table([*texts[4:5], "no base64? " * 500, "data:text/plain,abc", "data:image/png;base64,abcde"])
    )
    assert [reason for reason, _ in told] == [Reason.MISSING_IMAGE, *[Reason.UNREADABLE_IMAGE] * 3]
    for (_, detail), words in zip(
        told, ("gone.jpg", "neither a path nor base64", "isn't base64", "base64"), strict=True
    ):
        assert words in detail
    odd = pa.array([b"\xff.png"]).view(pa.string())
    assert load_pixels(make_table(odd))[0][0] == Reason.MISSING_IMAGE


@pytest.mark.parametrize(
    "values", [[None, None], [float("nan"), None], [{"bytes": None, "path": None}], pa.array([], pa.string())]
)
def test_a_column_of_nothing_has_no_pictures(make_table, load_pixels, values):
    assert load_pixels(make_table(values)) == [(Reason.MISSING_IMAGE, "the cell is empty")] * len(values)


@pytest.mark.parametrize("values", [[0.5], [{"x": "a"}], [[["a.png"]]], [True]])
def test_a_column_of_something_else_is_refused(make_table, values):
    with pytest.raises(InputError, match=r"'image' of rows\.csv holds .*--image_column"):
        locate(make_table(values))


def test_relative_paths_begin_in_image_dir(make_table, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(PICTURE)
    (state,) = locate(make_table(["a.png"]), image_dir=str(tmp_path / "photos"))
    assert (state.path, state.kind, state.size) == (str(tmp_path / "photos" / "a.png"), "file", len(PICTURE))
    with pytest.raises(InputError, match="--image_dir"):
        locate(make_table(["a.png"]), image_dir=str(tmp_path / "gone"))


def test_another_content_of_the_table_is_another_key(make_table):
    before = locate(make_table([PICTURE]))
    assert before == [PictureCell(before[0].table, 0)]
    assert locate(make_table([NOISE], name="other")) != before


def test_many_paths_are_located_soon(make_table):
    texts = [f"photos/{row}.jpg" for row in range(20_000)]
    start = time.perf_counter()
    assert len(locate(make_table(texts))) == len(texts)
    assert time.perf_counter() - start < 5


def test_pictures_in_the_table_are_located_without_being_read(make_table):
    struct = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    values = [bytes(10**6), "a" * 10**6, {"bytes": bytes(10**6), "path": "a.png"}]
    tables = [
        make_table([value] * 3, kind, str(kind)[:6]) for value, kind in zip(values, (None, None, struct), strict=True)
    ]
    usual, counted = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    pa.set_memory_pool(counted)
    try:
        found = [each for table in tables for each in locate(table)]
    finally:
        pa.set_memory_pool(usual)
    assert len(found) == 9
    assert all(isinstance(each, PictureCell) for each in found)
    assert 0 < counted.max_memory() < 10**5


def test_a_list_holds_the_pictures_of_its_row(make_table, load_pixels, tmp_path):
    (tmp_path / "b.png").write_bytes(NOISE)
    other = encode_picture(PillowImage.new("RGB", (40, 40), (200, 10, 10)))
    pixels = [load_pixels(make_table([content], name="one"))[0] for content in (PICTURE, NOISE, other)]
    struct = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    structs = [[{"bytes": PICTURE, "path": None}, {"bytes": None, "path": "b.png"}], None, [{"bytes": other}]]
    tables = [
        make_table([[TEXT, "b.png"], None, [base64.b64encode(other).decode()]], name="texts"),
        make_table([[PICTURE, NOISE], [], [None, other, b""]], pa.large_list(pa.binary()), "bytes"),
        make_table(structs, pa.list_(struct), "structs"),
        make_table([[PICTURE, NOISE], None, [other, None]], pa.list_(pa.binary(), 2), "pairs"),
    ]
    for table in tables:
        assert load_pixels(table) == [pixels[0] + pixels[1], (Reason.MISSING_IMAGE, "the cell is empty"), pixels[2]]
    picked = tables[0]._replace(dataset=tables[0].dataset.select([2, 0]))
    assert load_pixels(picked) == [pixels[2], pixels[0] + pixels[1]]


def test_a_list_with_a_bad_picture_or_too_many_is_told(make_table, load_pixels):
    (found,) = load_pixels(make_table([[PICTURE, b"none", NOISE]]))
    assert found == (Reason.UNREADABLE_IMAGE, "picture 2 of 3: not a picture in a known format")
    assert len(locate(make_table([[PICTURE] * 16]))[0]) == 16
    with pytest.raises(InputError, match=r"Row 2 of .* has 17 pictures .* at most 16"):
        locate(make_table([[PICTURE], [PICTURE] * 17]))
    with pytest.raises(InputError, match="--image_column"):
        locate(make_table([[[PICTURE]]]))
