"""Files of pairs that are no files, or stand for more than a memory holds: a row of the quarantine, and no waiting."""

import os
import time

import pytest

from data_utils.prepare.loading import MAX_PICTURE_BYTES, MAX_TEXT_BYTES


def make_sparse(path):
    with path.open("wb") as file:
        file.truncate(200 * 2**30)


def make_pipe(path):
    os.mkfifo(path)


def make_device(path):
    path.symlink_to("/dev/zero")


def make_folder(path):
    path.mkdir()


def make_loop(path):
    path.symlink_to(path.name)


KINDS = {make_sparse: "214,748,364,800 bytes; at most", make_pipe: "not a file", make_device: "not a file"}
KINDS |= {make_folder: "not a file", make_loop: "not a file"}


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("ending", [".txt", ".jpg", ".png"])
def test_what_is_no_plain_file_is_masked_at_once(make, ending, make_pairs, load):
    folder = make_pairs([("1", "positive"), ("2", "negative")])
    (folder / "data" / ("1.txt" if ending == ".txt" else "1.jpg")).unlink()
    make(folder / "data" / f"1{ending}")
    start = time.monotonic()
    pairs = load(folder)
    assert time.monotonic() - start < 5
    (entry,) = pairs.quarantine
    reason = "unreadable_text" if ending == ".txt" else "unreadable_image"
    assert (entry.guid, entry.reason, entry.action) == ("1", reason, "masked")
    assert KINDS[make] in entry.detail


def test_bounds_leave_room_for_what_people_have():
    assert MAX_TEXT_BYTES >= 10**7
    assert MAX_PICTURE_BYTES >= 4 * 10**8


@pytest.mark.parametrize("number", ["7", "8"])
def test_large_picture_is_masked_with_the_flag_that_takes_it(number, make_pairs, load, photo):
    large = photo(1, (90, 60))
    folder = make_pairs([("7", "positive", "a"), ("8", "negative", "b")])
    (folder / "data" / f"{number}.jpg").unlink()
    large.save(folder / "data" / f"{number}.png")
    details = []
    for bound in (5399, 5400):
        details.append([(entry.guid, entry.detail) for entry in load(folder, max_image_pixels=bound).quarantine])
    ((guid, detail),) = details[0]
    assert guid == number
    assert detail.startswith(f"{number}.png: 90 x 60 pixels, more than --max_image_pixels 5399 allows")
    assert details[1] == []
