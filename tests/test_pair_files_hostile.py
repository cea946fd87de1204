"""Files of pairs that are no files, or stand for more than a memory holds: a row of the quarantine, and no waiting."""

import os
import time

import pytest


def make_sparse(path):
    path.touch()
    os.truncate(path, 200 * 2**30)


KINDS = {make_sparse: "214,748,364,800 bytes; at most"}
KINDS |= dict.fromkeys((os.mkfifo, os.mkdir), "not a file")
KINDS |= {lambda path: path.symlink_to("/dev/zero"): "not a file", lambda path: path.symlink_to(path): "not a file"}


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
