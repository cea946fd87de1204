"""Rows out of a WebDataset tar that any program may have made: neighbours of one name up to the first dot are a row."""

from __future__ import annotations

import posixpath
import re
import tarfile
from collections import Counter
from collections.abc import Iterator
from functools import cached_property, partial
from itertools import chain
from typing import Any, BinaryIO, cast

from data_utils.shards.shard_file import GUID_COLUMNS, Row, Shard, ShardError, ShardRow, find_guid, open_shard
from data_utils.sources.encodings import decode_text
from data_utils.system.bounded import MEBIBYTE, parse_json
from modeling.pictures import PICTURE_SUFFIXES

Members = dict[str, tarfile.TarInfo]
_COLUMN_OF = {"txt": "text", "cls": "label", **{suffix.removeprefix("."): "image" for suffix in PICTURE_SUFFIXES}}
# Pictures that aren't read: a row that has no other file is a row all the same, whose faults are entered.
_OTHER_PICTURES = ("gif", "bmp", "tif", "tiff", "heic", "heif", "avif", "jxl", "jp2", "svg", "ppm", "pgm", "pnm")
_ENDINGS = frozenset((*_COLUMN_OF, *_OTHER_PICTURES, "json"))
# Texts that lie beside the rows.
_DOCUMENTS = re.compile(
    r"(readme|licen[sc]e|copying|notice|authors|citation|change[-_]?log|contributing|requirements|classes|labels|"
    r"categories|index|manifest|metadata|checksums|filelist)(?![a-z0-9])",
    re.IGNORECASE,
)
# What systems and programs keep for themselves, beside names with a dot before; also as old programs unpacked it.
_LITTER = re.compile(
    r"\.[^.].*|\.\..+|__macosx|@eadir|lost\+found|\$recycle\.bin|system volume information|(@?paxheader|@longlink).*",
    re.IGNORECASE | re.DOTALL,
)
_MAX_BYTES = 256 * MEBIBYTE  # of a file that is read, and of a name
_MAX_PADDING = MEBIBYTE  # behind the archive's end
_MAX_LINKS = 8  # from one to the next
_LOOKED_AT, _SHOWN = 16, 40  # rows; characters


def iterate_rows(shard: Shard, start: int) -> Iterator[Row]:
    """See `iterate_shard`; of rows before `start` only the headers are read."""
    with open_shard(shard) as file:
        files = _TarFiles(file)
        rows = enumerate(_iterate_rows(files))
        for number, (key, members) in rows:
            if number + 1 == shard.rows and next(rows, None) is not None:
                raise ShardError(f"{shard.url} has more than the {shard.rows} rows that were announced; copy it again.")
            if number >= start:
                yield number, partial(_read_row, shard, files, key, members)


def iterate_texts(shard: Shard) -> Iterator[bytes]:
    """The texts alone, not decoded; pictures are passed over."""
    with open_shard(shard) as file:
        files = _TarFiles(file)
        yield from (files.read(members["txt"]) for _, members in _iterate_rows(files) if "txt" in members)


def find_columns(shard: Shard) -> tuple[set[str], set[str]]:
    """The columns that the first rows have, and the endings in them and between them."""
    columns, endings, rows = set(), set(), 0
    with open_shard(shard) as file:
        files = _TarFiles(file)
        for key, members in files.iterate_groups():
            columns |= {_COLUMN_OF.get(ending, ending) for ending in members}
            endings |= {f".{ending}" for ending in members}
            if "label" in _read_details(files, members):  # null too: other rows may have one
                columns.add("label")
                endings.add(".json with label")
            rows += _is_row(files, key, members)
            if rows == _LOOKED_AT:
                break
    return columns, endings


def _iterate_rows(files: _TarFiles) -> Iterator[tuple[str, Members]]:
    """Key and files of each group that is a row.

    Raises:
        tarfile.ReadError: a row's files stand in several places, so that each of them would be a row of its own.
    """
    seen = set()
    for key, members in files.iterate_groups():
        if not _is_row(files, key, members):
            continue
        if key in seen:
            name = next(iter(members.values())).name
            raise tarfile.ReadError(
                f"{name} stands apart from earlier files of the same row; pack the files again with tar --sort=name"
            )
        seen.add(key)
        yield key, members


def _is_row(files: _TarFiles, key: str, members: Members) -> bool:
    """Whether files of one name are a row, and not a document or something else that lies beside the rows.

    Raises:
        tarfile.ReadError: they are several rows.
    """
    _refuse_several(key, members)
    known = {ending.rpartition(".")[2] for ending in members} & _ENDINGS  # also of 1.large.jpg
    if known == {"txt"}:
        return not _DOCUMENTS.match(posixpath.basename(key))
    if known == {"json"}:
        return not _read_details(files, members).keys().isdisjoint(("label", *GUID_COLUMNS))
    return bool(known)


def _refuse_several(key: str, members: Members) -> None:
    """Refuse rows that go by one name since theirs have dots before the ending, like photo.1.jpg and photo.2.jpg."""
    kinds: dict[str, set[str]] = {}
    for ending in members:
        middle, _, last = ending.rpartition(".")
        if last in _COLUMN_OF:
            kinds.setdefault(middle, set()).add(_COLUMN_OF[last])
    most = max(map(len, kinds.values()), default=0)
    alike = [middle for middle, found in kinds.items() if len(found) == most and {"image", "text"} <= found]
    counts = Counter(chain(*kinds.values()))
    if "" not in kinds and max(counts["text"], counts["label"]) > 1:
        alike = list(kinds)  # nothing bears the name alone, and more than one has a text, or a label
    if len(alike) > 1:
        names = [f"{key}.{middle}" if middle else key for middle in alike[:2]]
        raise tarfile.ReadError(
            f"{names[0]} and {names[1]} would be one row, whose name ends at its first dot; write other signs for the "
            "dots within names"
        )


def _read_details(files: _TarFiles, members: Members) -> dict[str, Any]:
    """Fields of the row's .json; of one that can't be read its content as the label, which nobody knows then."""
    if "json" not in members:
        return {}
    content = files.read(members["json"])
    try:
        text = content.decode("utf-8", "surrogatepass")  # as data_utils.shard writes it
    except UnicodeDecodeError:
        text = decode_text(content)[0]
    try:
        details = parse_json(text.removeprefix("\ufeff"))
    except ValueError:
        return {"label": f"{text[:_SHOWN]} (no JSON)"}
    return details if isinstance(details, dict) else {}


def _read_row(shard: Shard, files: _TarFiles, key: str, members: Members) -> ShardRow:
    details = _read_details(files, members)
    sources: dict[str, bytes] = {}
    for ending, member in members.items():
        if (column := _COLUMN_OF.get(ending)) is not None and column not in sources:  # the first of several pictures
            sources[column] = files.read(member)
    guid, text, label = find_guid(details), sources.get("text"), sources.get("label")
    return ShardRow(
        guid=key if guid is None else str(guid),
        text=None if text is None else decode_text(text, shard.text_encoding)[0],
        image=sources.get("image"),
        label=details.get("label") if label is None else decode_text(label)[0].strip(),
    )


class _TarFiles:
    """The files of an uncompressed tar; that one is whole is known when they have been gone through."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = cast(BinaryIO, _Bounded(file))  # of which tarfile needs no more than there is
        self._archive = tarfile.open(fileobj=self._file, mode="r:")  # noqa: SIM115  (it holds nothing but `file`)

    def iterate_groups(self) -> Iterator[tuple[str, Members]]:
        """Key (the name up to the first dot) and files, by the rest of their names, of neighbours with the same key.

        Folders, what has a name that begins with a dot, and what systems and programs keep is passed over.

        Raises:
            tarfile.ReadError: the archive is cut or damaged, or something follows its end.
        """
        current = ""
        members: Members = {}
        for member in _iterate_members(self._archive):
            folder, name = posixpath.split(posixpath.normpath(member.name))
            stem, _, ending = name.partition(".")
            if member.isdir() or not stem or any(map(_LITTER.fullmatch, [*folder.split("/"), name])):
                continue
            key = posixpath.join(folder, stem)
            if key != current and members:
                yield current, members
                members = {}
            current, ending = key, ending.lower()
            if ending in members:
                raise tarfile.ReadError(f"{member.name} stands in it twice")
            members[ending] = member
        if members:
            yield current, members
        self._check_end()

    def read(self, member: tarfile.TarInfo) -> bytes:
        """The content of a file; of a link, that of the file in the archive which it names.

        Raises:
            tarfile.ReadError: it is larger than is read, or no file.
        """
        target: tarfile.TarInfo | None = member
        for _ in range(_MAX_LINKS):
            if target is None or not (target.islnk() or target.issym()):
                break
            folder = "" if target.islnk() else posixpath.dirname(target.name)
            target = self._by_name.get(posixpath.normpath(posixpath.join(folder, target.linkname)))
        content = self._archive.extractfile(target) if target is not None and target.isreg() else None
        if target is None or content is None:
            raise tarfile.ReadError(
                f"{member.name} is no file, but a link or a device, and the archive has no content for it; write it "
                "with tar --dereference --hard-dereference"
            )
        if target.size > _MAX_BYTES:
            raise tarfile.ReadError(f"{member.name} has {target.size} bytes; at most {_MAX_BYTES} are read of a file")
        return content.read()

    @cached_property
    def _by_name(self) -> Members:
        """All members by their names, for archives with links alone: it takes up memory for each of them."""
        self._file.seek(0)
        with tarfile.open(fileobj=self._file, mode="r:") as archive:
            return {posixpath.normpath(member.name): member for member in _iterate_members(archive)}

    def _check_end(self) -> None:
        """Refuse an archive without the empty block at its end, at whose cut or damage tarfile would just stop."""
        self._file.seek(self._archive.offset)
        if self._file.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
            raise tarfile.ReadError(f"after {self._archive.offset} bytes comes neither a file nor the archive's end")
        start = self._file.tell()
        left = self._file.seek(0, 2) - start
        self._file.seek(start)
        if left > _MAX_PADDING or self._file.read(left).strip(tarfile.NUL):
            raise tarfile.ReadError(
                f"{left} bytes follow the archive's end after {start}; of archives that were joined each must be a file"
            )


class _Bounded:
    """A file of which tarfile never takes more into memory than a name or a file may have, whatever a header says."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MAX_BYTES:
            raise tarfile.ReadError(f"a header speaks of {size} bytes")
        return self._file.read(size)


def _iterate_members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (member := archive.next()) is not None:
        # Or the archive would remember every file that it has passed.
        archive.members = []  # type: ignore[attr-defined]  # typeshed leaves it out
        if member.size < 0:  # which would lead back, and round for ever
            raise tarfile.ReadError(f"{member.name} has {member.size} bytes")
        yield member
