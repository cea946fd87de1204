"""Copies of pairs, made in a folder of their own and described before any of them is moved beside the data."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data_utils.augment.arguments import KINDS
from data_utils.augment.picture import change_picture
from data_utils.augment.text import change_text
from data_utils.prepare.loading import read_picture_file, read_text_file
from data_utils.prepare.pair_files import TEXT_SUFFIX, FileState, PairFolder, possible_paths
from data_utils.sources.encodings import decode_text
from data_utils.sources.pictures import PICTURE_SUFFIXES, PictureError
from data_utils.sources.records import Record
from data_utils.sources.text import clean_text, text_key
from modeling.errors import InputError

NO_TEXT = "rows without a text that can be read"
EMPTY_TEXT = "texts of nothing but addresses and names"
SAME_TEXT = "texts of which nothing (more) can be changed"
NO_PICTURE = "rows without a picture that can be read"
_Change = tuple[str, bytes, tuple[str, ...]]  # guid of the copy, its changed file, and what was changed


@dataclass(frozen=True)
class Copy:
    """A changed copy of a pair: `12_t1` or `12_i1` of `12`.

    Attributes:
        parent: guid of the pair it was made from.
        label: the parent's.
        kind: one of `KINDS`.
        changes: what was changed.
        files: file name -> SHA-256 of its bytes.
    """

    guid: str
    parent: str
    label: str
    kind: str
    changes: tuple[str, ...]
    files: dict[str, str]


@dataclass
class CopyMaker:
    """Makes copies of the pairs in `folder` and puts their files into `staging`.

    Attributes:
        folder: of the pairs' files.
        staging: an empty folder on the same disk.
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
    known_texts: frozenset[str] = frozenset()
    text_encoding: str | None = None
    skipped: Counter[str] = field(default_factory=Counter)

    def make(self, parent: Record, kind: str, count: int) -> Iterator[Copy]:
        """Up to `count` copies; fewer, noted in `skipped`, where the pair doesn't allow them.

        Raises:
            InputError: a file cannot be written.
        """
        files = self.folder.find(parent)
        if kind == "text":
            changed, suffix, other = self._change_text(parent.guid, files.text, count), ".txt", files.picture
        else:
            changed, suffix, other = self._change_picture(parent.guid, files.picture, count), ".jpg", files.text
        try:
            for guid, content, changes in changed:
                names = [f"{guid}{suffix}"]
                (self.staging / names[0]).write_bytes(content)
                if other.kind == "file":
                    names.append(f"{guid}{Path(other.path).suffix}")
                    _link_or_copy(other.path, self.staging / names[-1])
                hashes = {name: hash_file(self.staging / name) for name in names}
                yield Copy(guid, parent.guid, parent.label or "", kind, changes, hashes)
        except OSError as error:
            raise InputError(
                f"Cannot write copies into {self.staging} ({error.strerror}); nothing was added."
            ) from error

    def _change_text(self, parent: str, file: FileState, count: int) -> Iterator[_Change]:
        source = read_text_file(file)
        text = "" if source is None else decode_text(source, self.text_encoding)[0]
        if not clean_text(text, "report"):
            self.skipped[NO_TEXT if source is None else EMPTY_TEXT] += 1
            return
        keys = {text_key(text), *self.known_texts}
        for guid, draws in self._free_guids(parent, "text", count):
            changed, changes = change_text(text, draws) or (text, ())
            if text_key(changed) in keys:
                self.skipped[SAME_TEXT] += 1
                continue
            keys.add(text_key(changed))
            yield guid, changed.encode("utf-8"), changes

    def _change_picture(self, parent: str, file: FileState, count: int) -> Iterator[_Change]:
        source = read_picture_file(file)
        for guid, draws in self._free_guids(parent, "image", count):
            try:
                picture, changes = change_picture(source or b"", draws, flip=self.flip)
            except PictureError:
                self.skipped[NO_PICTURE] += 1
                return
            yield guid, picture, changes

    def _free_guids(self, parent: str, kind: str, count: int) -> Iterator[tuple[str, random.Random]]:
        """The first `count` guids, numbered from 1, that no list has and no file, and the draws of each."""
        number = 0
        while count:
            number += 1
            guid = f"{parent}_{KINDS[kind]}{number}"
            paths = possible_paths(os.path.join(self.folder.path, guid), TEXT_SUFFIX, *PICTURE_SUFFIXES)
            if guid not in self.taken and not any(map(os.path.lexists, paths)):
                count -= 1
                yield guid, random.Random(f"{self.seed} {parent} {kind} {number}")


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _link_or_copy(source: str, target: Path) -> None:
    """One file under two names where the disk can do it, since pictures may be large."""
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copyfile(source, target)


def read_text_keys(folder: PairFolder, records: Sequence[Record], encoding: str | None) -> Iterator[str]:
    """`text_key` of each pair that has a text; `encoding` is of those whose own isn't certain."""
    for record in records:
        source = read_text_file(folder.find(record).text)
        key = None if source is None else text_key(decode_text(source, encoding)[0])
        if key is not None:
            yield key
