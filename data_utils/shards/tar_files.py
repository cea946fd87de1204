"""The files of a tar that any program may have made, in groups of one name up to the first dot."""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Iterator
from functools import cached_property
from typing import BinaryIO

from data_utils.system.bounded import MEBIBYTE

Members = dict[str, tarfile.TarInfo]
_MAX_BYTES = 256 * MEBIBYTE  # of a file that is read, and of a name
_MAX_PADDING = MEBIBYTE  # behind the archive's end
_MAX_LINKS = 8  # from one to the next
# Folders of what systems and programs keep for themselves, beside those with a dot before.
_LITTER = frozenset(("__macosx", "@eadir", "lost+found", "$recycle.bin", "system volume information"))
_LITTER_STARTS = ("paxheader", "@paxheader", "@longlink")  # names as old programs unpacked and packed them


class TarFiles:
    """The files of a tar from its first to its last; that one is whole is known when they have been gone through.

    Args:
        file: of the archive, uncompressed.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = _Bounded(file)
        self._archive = tarfile.open(fileobj=self._file, mode="r:")  # noqa: SIM115  (it holds nothing but `file`)

    def iterate_groups(self) -> Iterator[tuple[str, Members]]:
        """Key (the name up to the first dot) and files, by the rest of their names, of neighbours with the same key.

        Folders, what has a name that begins with a dot, and what systems and programs keep is passed over.

        Raises:
            tarfile.ReadError: the archive is cut or damaged, or something follows its end.
        """
        current, members = None, {}
        for member in _iterate_members(self._archive):
            folder, name = posixpath.split(posixpath.normpath(member.name))
            stem, _, ending = name.partition(".")
            if member.isdir() or not stem or any(map(_is_litter, [*folder.split("/"), name])):
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
        target = member
        for _ in range(_MAX_LINKS):
            if target is None or target.isreg() or not (target.islnk() or target.issym()):
                break
            folder = "" if target.islnk() else posixpath.dirname(target.name)
            target = self._by_name.get(posixpath.normpath(posixpath.join(folder, target.linkname)))
        if target is None or not target.isreg():
            raise tarfile.ReadError(
                f"{member.name} is no file, but a link or a device, and the archive has no content for it; write it "
                "with tar --dereference --hard-dereference"
            )
        if target.size > _MAX_BYTES:
            raise tarfile.ReadError(f"{member.name} has {target.size} bytes; at most {_MAX_BYTES} are read of a file")
        return self._archive.extractfile(target).read()

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
        archive.members = []  # or the archive would remember every file that it has passed
        if member.size < 0:  # which would lead back, and round for ever
            raise tarfile.ReadError(f"{member.name} has {member.size} bytes")
        yield member


def _is_litter(name: str) -> bool:
    """Whether a file or folder of this name is of what systems and programs keep for themselves."""
    name = name.lower()
    return name in _LITTER or name.startswith(_LITTER_STARTS) or (name.startswith(".") and name not in (".", ".."))
