"""Copies of pairs, made in a folder of their own and described before any of them is moved beside the data."""

from __future__ import annotations

import itertools
import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from data_utils.augment.arguments import KINDS
from data_utils.augment.manifest import hash_file
from data_utils.augment.picture import change_picture
from data_utils.augment.text import change_text
from data_utils.prepare.loading import read_file, read_text_file
from data_utils.prepare.pair_files import TEXT_SUFFIX, FileState, PairFiles, PairFolder, possible_paths
from data_utils.sources.encodings import decode_text
from data_utils.sources.records import Record
from modeling.errors import InputError
from modeling.pictures import PICTURE_SUFFIXES, PictureError
from modeling.text import clean_text, text_key

NO_TEXT = "rows without a text that can be read"
EMPTY_TEXT = "texts of nothing but addresses and names"
SAME_TEXT = "texts of which nothing (more) can be changed"
NO_PICTURE = "rows without a picture that can be read"
Guids = Iterator[tuple[str, random.Random]]  # of copies, with the draws of each
Change = tuple[str, bytes, tuple[str, ...]]  # guid of a copy, its changed file, and what was changed


@dataclass(frozen=True)
class Copy:
    """A changed copy of a pair, `12_t1` or `12_i1` of the `parent` 12, with SHA-256 of its files by their names."""

    guid: str
    parent: str
    label: str
    kind: str
    changes: tuple[str, ...]
    files: dict[str, str]


@dataclass
class CopyMaker:
    """Makes copies of the pairs in `folder` and puts their files into `staging`, a folder on the same disk.

    Attributes:
        seed: of all draws, together with parent, kind and number.
        flip: whether pictures may be mirrored.
        taken: guids that no copy may have.
        known_texts: `text_key` of every row; a copy with the text of another row would tie their groups together.
        text_encoding: of texts whose own isn't certain.
        skipped: why copies could not be made, and how often.
    """

    folder: PairFolder
    staging: Path
    seed: int
    flip: bool
    taken: set[str]
    known_texts: frozenset[str | None] = frozenset()
    text_encoding: str | None = None
    skipped: Counter[str] = field(default_factory=Counter)

    def make(self, parent: Record, kind: str, count: int) -> Iterator[Copy]:
        """Up to `count` copies of a kind; fewer, noted in `skipped`, where the pair doesn't allow them.

        Raises:
            InputError: a file cannot be written.
        """
        pair = self.folder.find(parent.guid)
        change, suffix, other = (
            (self._change_text, TEXT_SUFFIX, pair.picture)
            if kind == "text"
            else (self._change_picture, PICTURE_SUFFIXES[0], pair.text)
        )
        try:
            for guid, content, changes in change(pair, self._free_guids(parent.guid, kind, count)):
                paths = [self.staging / f"{guid}{suffix}"]
                paths[0].write_bytes(content)
                if other.kind == "file":
                    paths.append(self.staging / f"{guid}{Path(other.path).suffix}")
                    _link_or_copy(other.path, paths[1])
                hashes = {path.name: hash_file(path) for path in paths}
                yield Copy(guid, parent.guid, parent.label or "", kind, changes, hashes)
        except OSError as error:
            raise InputError(f"Cannot write into {self.staging} ({error.strerror}); nothing was added.") from error

    def _change_text(self, pair: PairFiles, guids: Guids) -> Iterator[Change]:
        text = read_text(pair.text, self.text_encoding)
        if text is None or not clean_text(text, "report"):
            self.skipped[NO_TEXT if text is None else EMPTY_TEXT] += 1
            return
        keys = {text_key(text), *self.known_texts}
        for guid, draws in guids:
            changed, changes = change_text(text, draws) or (text, ())
            if text_key(changed) in keys:
                self.skipped[SAME_TEXT] += 1
            else:
                keys.add(text_key(changed))
                yield guid, changed.encode("utf-8"), changes

    def _change_picture(self, pair: PairFiles, guids: Guids) -> Iterator[Change]:
        source = read_file(pair.picture) or b""
        try:
            for guid, draws in guids:
                yield guid, *change_picture(source, draws, flip=self.flip)
        except PictureError:
            self.skipped[NO_PICTURE] += 1

    def _free_guids(self, parent: str, kind: str, count: int) -> Guids:
        """The first `count` guids, numbered from 1, that no list has and no file, and the draws of each."""
        guids = ((f"{parent}_{KINDS[kind]}{number}", number) for number in itertools.count(1))
        free = ((guid, number) for guid, number in guids if guid not in self.taken and not self._has_file(guid))
        for guid, number in itertools.islice(free, count):
            yield guid, random.Random(f"{self.seed} {parent} {kind} {number}")

    def _has_file(self, guid: str) -> bool:
        paths = possible_paths(os.path.join(self.folder.path, guid), TEXT_SUFFIX, *PICTURE_SUFFIXES)
        return any(map(os.path.lexists, paths))


def read_text(file: FileState, encoding: str | None) -> str | None:
    """The text in a file, of this encoding unless its own is certain; None where there is none."""
    source = read_text_file(file)
    return None if source is None else decode_text(source, encoding)[0]


def _link_or_copy(source: str, target: Path) -> None:
    """One file under two names where the disk can do it, since pictures may be large."""
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copyfile(source, target)
