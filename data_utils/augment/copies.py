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
from data_utils.prepare.cache import FileState
from data_utils.prepare.loading import read_picture_file, read_text_file
from data_utils.prepare.pair_files import TEXT_SUFFIX, PairFolder, possible_paths
from data_utils.sources.encodings import decode_text
from data_utils.sources.pictures import PICTURE_SUFFIXES, PictureError
from data_utils.sources.records import Record
from data_utils.sources.text import clean_text, text_key
from modeling.errors import InputError

NO_TEXT = "rows without a text that can be read"
EMPTY_TEXT = "texts of nothing but addresses and names"
SAME_TEXT = "texts of which nothing (more) can be changed"
NO_PICTURE = "rows without a picture that can be read"


@dataclass(frozen=True)
class Copy:
    """A changed copy of a pair.

    Attributes:
        guid: `12_t1` or `12_i1` for a copy of `12`.
        parent: guid of the pair it was made from.
        label: the parent's.
        kind: one of `KINDS`.
        number: in the guid.
        seed: of the draws, together with parent, kind and number.
        changes: what was changed.
        files: file name -> SHA-256 of its bytes.
    """

    guid: str
    parent: str
    label: str
    kind: str
    number: int
    seed: int
    changes: tuple[str, ...]
    files: dict[str, str]


@dataclass
class CopyMaker:
    """Makes copies of the pairs in `folder` and puts their files into `staging`.

    Attributes:
        folder: of the pairs' files.
        staging: an empty folder on the same disk.
        seed: of all draws.
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
        try:
            yield from (self._copy_text if kind == "text" else self._copy_picture)(parent, count)
        except OSError as error:
            raise InputError(
                f"Cannot write copies into {self.staging} ({error.strerror}); nothing was added."
            ) from error

    def _copy_text(self, parent: Record, count: int) -> Iterator[Copy]:
        files = self.folder.find(parent)
        source = read_text_file(files.text)
        if source is None:
            self.skipped[NO_TEXT] += 1
            return
        text, _ = decode_text(source, self.text_encoding)
        if not clean_text(text, "report"):
            self.skipped[EMPTY_TEXT] += 1
            return
        keys = {text_key(text), *self.known_texts}
        for number in self._free_numbers(parent.guid, "text", count):
            changed = change_text(text, self._random(parent.guid, "text", number))
            if changed is None or text_key(changed.text) in keys:
                self.skipped[SAME_TEXT] += 1
                continue
            keys.add(text_key(changed.text))
            copy_of = {".txt": changed.text.encode("utf-8")}
            yield self._stage(parent, "text", number, changed.changes, copy_of, files.picture)

    def _copy_picture(self, parent: Record, count: int) -> Iterator[Copy]:
        files = self.folder.find(parent)
        source = read_picture_file(files.picture)
        for number in self._free_numbers(parent.guid, "image", count):
            try:
                picture, changes = change_picture(
                    source or b"", self._random(parent.guid, "image", number), flip=self.flip
                )
            except PictureError:
                self.skipped[NO_PICTURE] += 1
                return
            yield self._stage(parent, "image", number, changes, {".jpg": picture}, files.text)

    def _random(self, guid: str, kind: str, number: int) -> random.Random:
        return random.Random(f"{self.seed} {guid} {kind} {number}")

    def _free_numbers(self, guid: str, kind: str, count: int) -> Iterator[int]:
        """The first numbers from 1 whose guid is in no list and has no file."""
        number = 0
        for _ in range(count):
            number += 1
            while self._is_taken(f"{guid}_{KINDS[kind]}{number}"):
                number += 1
            yield number

    def _is_taken(self, guid: str) -> bool:
        stem = os.path.join(self.folder.path, guid)
        paths = possible_paths(stem, TEXT_SUFFIX, *PICTURE_SUFFIXES)
        return guid in self.taken or any(map(os.path.lexists, paths))

    def _stage(
        self,
        parent: Record,
        kind: str,
        number: int,
        changes: tuple[str, ...],
        made: dict[str, bytes],
        other: FileState,
    ) -> Copy:
        """Write the made file {suffix: bytes}, and put the parent's `other` file beside it as it is."""
        guid = f"{parent.guid}_{KINDS[kind]}{number}"
        for suffix, content in made.items():
            (self.staging / f"{guid}{suffix}").write_bytes(content)
        names = [f"{guid}{suffix}" for suffix in made]
        if other.kind == "file":
            names.append(f"{guid}{Path(other.path).suffix}")
            _link_or_copy(other.path, self.staging / names[-1])
        files = {name: hash_file(self.staging / name) for name in names}
        return Copy(guid, parent.guid, parent.label or "", kind, number, self.seed, changes, files)


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
