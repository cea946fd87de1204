"""Where pairs come from; of a list the two files of each guid, as it is written, or the one twin that Unicode knows."""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import unquote

from data_utils.sources.quarantine import Fault, Hint, Reason
from data_utils.sources.records import SHORTENED, Rows, is_valid_guid, read_list
from modeling.errors import InputError
from modeling.pictures import PICTURE_SUFFIXES

TEXT_SUFFIX = ".txt"
# What is easily lost or added between list and folder: endings, signs that show nothing, quotes, a leading plus,
# thousands' commas, dots at the end.
_ENDING = re.compile(r"\.(?:txt|jpe?g|png|webp|gif|bmp|tiff?|heic|heif|avif)$")
_UNSEEN = re.compile("[\u200b-\u200f\u2060\ufeff\xad]|^[\\s'=\"]+|[\\s'\"]+$")
_LOST = re.compile(r"(?<=\d),(?=\d{3})|[\ufe0e\ufe0f]|^\+|\.+$")
_JOINTS = re.compile(r"[\s_-]+")
_WHOLE_NUMBER = re.compile(r"0*(\d+)(?:\.0*)?")
_KEPT_DIGITS = 15  # of a number, by spreadsheets and floats


class FileState(NamedTuple):
    """What a cache key knows of a file; a tuple, since it is made for every file of a list.

    Attributes:
        path: resolved path; "" when the file is absent.
        kind: "file", "absent", or "other" (folder, pipe, device, no permission): "other" is never opened.
        size: bytes.
        mtime_ns: time of the last change in nanoseconds.
    """

    path: str = ""
    kind: str = "absent"
    size: int = 0
    mtime_ns: int = 0


_ABSENT = FileState()


class PairFiles(NamedTuple):
    """The two files of a guid; both absent when it is not valid."""

    text: FileState
    picture: FileState


class PictureCell(NamedTuple):
    """A picture that stands in a table, whose hash is `table`, in this row; read where it is needed (`CellReader`).

    `item` is its place in the row's list, where the column holds lists.
    """

    table: str
    row: int
    item: int = 0


CellReader = Callable[[PictureCell], bytes]  # raises ValueError, which says why, for what is no picture's bytes
# Where a text and a picture are; a text that stands in a table is itself, and a fault says why there is none.
Text = FileState | str | Fault
Picture = FileState | PictureCell | Fault
Pictures = Sequence[Picture | list[Picture]]  # of rows; a list holds two or more


class PairSource(Protocol):
    """Rows, and the text and the picture of each: what `load_pairs` asks of a list and of a table alike.

    Attributes:
        name: for messages.
        path: the folder of the files, for messages.
        sides: of "text" and "image" those that the data have at all.
        parts: those (of train, val, test) that the data declare; none, or several.
        passed_over: names of files that are empty or can't be read, with that of the one taken in their place.
        read_cell: reads the pictures that stand in a table; can be sent to another process.
        has_files: whether files are called as the guids, which then have to be valid.
    """

    name: str
    path: Path
    sides: Sequence[str] = ("text", "image")
    parts: Collection[str] = ()
    passed_over: list[tuple[str, str]]
    read_cell: CellReader | None = None
    has_files: bool = False

    def rows(self, labels: Sequence[str], *, for_prediction: bool = False) -> Rows:
        """The rows; `InputError` where they can't be read."""
        ...

    def locate(self, rows: Rows) -> tuple[Sequence[Text], Pictures]:
        """Where the texts and the pictures of some of its rows are."""
        ...

    def explain(self, guid: str, fault: Fault) -> Fault:
        """The fault of a row's text or picture, with a hint where something else may have been meant."""
        return fault


def pair_folder(pair_dir: Path) -> Path:
    """The folder of the files: `data` inside of the given one, or the given one itself.

    Raises:
        InputError: there is no such folder.
    """
    inside = Path(pair_dir, "data")
    if os.path.isdir(inside):
        return inside.resolve()
    if not os.path.isdir(pair_dir):
        raise InputError(
            f"the data folder {pair_dir} does not exist; it should hold data/{{guid}}.txt and data/{{guid}}.jpg. "
            "Check --data_dir."
        )
    return Path(pair_dir).resolve()


class PairFolder:
    """Finds the files of guids; the folder is listed only where a name isn't there as it is written.

    Attributes:
        path: the folder.
        passed_over: see `PairSource`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.passed_over: list[tuple[str, str]] = []

    def find(self, guid: str) -> PairFiles:
        """Look up text and picture; of a guid that is not valid no file is looked at, as it may lie elsewhere."""
        if not is_valid_guid(guid):
            return PairFiles(_ABSENT, _ABSENT)
        return PairFiles(self._find(guid, TEXT_SUFFIX), self._find(guid, *PICTURE_SUFFIXES))

    def explain(self, guid: str, fault: Fault) -> Fault:
        """The fault of one of its files, with a hint where a file of another name may have been meant."""
        if fault.reason in (Reason.MISSING_TEXT, Reason.MISSING_IMAGE):
            return fault._replace(hint=self.find_near(guid, is_text=fault.reason == Reason.MISSING_TEXT))
        is_damaged = fault.reason == Reason.UNREADABLE_IMAGE
        return fault._replace(hint=self._find_other(guid, self.find(guid).picture)) if is_damaged else fault

    def find_near(self, guid: str, *, is_text: bool) -> Hint | None:
        """Why a file that is absent may be there under another name, with that name; None where there is none."""
        if SHORTENED.fullmatch(guid):
            return Hint("a spreadsheet has shortened this number", is_other_name=True)
        near = self._near.get(_loose(guid), ())
        found = [name for name in near if name.lower().endswith(TEXT_SUFFIX) == is_text]
        if not found:
            return None
        if _compose(os.path.splitext(found[0])[0]) != _compose(guid):
            return Hint(f"there is {found[0]}", is_other_name=True)
        if len(found) > 1:  # or it would have been taken as the twin
            return Hint(f"{len(found)} files have this name in other spellings of Unicode", is_other_name=True)
        remedy = "rename it" if is_text else "convert it to JPEG or PNG, or rename it if it is one"
        return Hint(f"there is {found[0]}, an ending that is not read: {remedy}")

    def _find_other(self, guid: str, taken: FileState) -> Hint | None:
        """Another picture beside the one that was taken and can't be read."""
        paths = possible_paths(os.path.join(self.path, guid), *PICTURE_SUFFIXES)
        names = (os.path.basename(path) for path in paths if path != taken.path and os.path.isfile(path))
        return next((Hint(f"there is {name} as well") for name in names), None)

    def _find(self, guid: str, *suffixes: str) -> FileState:
        first = _ABSENT
        for path in possible_paths(os.path.join(self.path, guid), *suffixes):
            state = look_at(path)
            if state.kind == "file" and state.size:
                if first != _ABSENT:
                    self.passed_over.append((os.path.basename(first.path), os.path.basename(path)))
                return state
            if first == _ABSENT:
                first = state
        return first if first != _ABSENT or guid.isascii() else self._find_twin(guid, *suffixes)

    def _find_twin(self, guid: str, *suffixes: str) -> FileState:
        """The one file whose name differs only in how Unicode writes it: macOS stores names in pieces (NFD)."""
        near = self._near.get(_loose(guid), ())
        for path in possible_paths(_compose(guid), *suffixes):
            if twins := [name for name in near if _compose(name) == path]:
                return look_at(os.path.join(self.path, twins[0])) if len(twins) == 1 else _ABSENT
        return _ABSENT

    @cached_property
    def _near(self) -> dict[str, list[str]]:
        """Names of files by what is left of their stems when all that is easily lost is taken away."""
        found = defaultdict(list)
        with suppress(OSError):  # a folder may be searched and yet not listed
            for name in sorted(os.listdir(self.path)):
                found[_loose(os.path.splitext(name)[0])].append(name)
        return found


class PairList(PairFolder, PairSource):
    """A list file, and the folder of its pairs."""

    has_files = True

    def __init__(self, list_file: Path, pair_dir: Path) -> None:
        super().__init__(pair_folder(pair_dir))
        self.name = str(list_file)

    def rows(self, labels: Sequence[str], *, for_prediction: bool = False) -> Rows:
        """See `read_list`."""
        return read_list(Path(self.name), labels, for_prediction=for_prediction)

    def locate(self, rows: Rows) -> tuple[Sequence[Text], Pictures]:
        """`find` of all rows."""
        found = list(map(self.find, rows.guids))
        return [pair.text for pair in found], [pair.picture for pair in found]


def look_at(path: str) -> FileState:
    """State of a file, following links; never raises and never opens the file."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return _ABSENT
    except OSError as error:  # no permission, a name too long, a loop of links
        return FileState(path, "other", -(error.errno or 0))
    kind = "file" if stat.S_ISREG(status.st_mode) else "other"
    return FileState(path, kind, status.st_size, status.st_mtime_ns)


def possible_paths(stem: str, *suffixes: str) -> Iterator[str]:
    """The places where a file of the pair `folder/guid` may lie, in the order in which they are tried.

    Some cameras and systems write the ending in capitals. To try those last costs nothing where a file is found before.
    """
    for suffix in suffixes:
        yield stem + suffix
    for suffix in suffixes:
        yield stem + suffix.upper()


def _compose(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _loose(guid: str) -> str:
    """The guid without case, ending, quotes, leading zeros, decimals, and the digits that a spreadsheet rounds."""
    key = _ENDING.sub("", _UNSEEN.sub("", unicodedata.normalize("NFKC", unquote(guid))).casefold())
    key = _JOINTS.sub("-", _LOST.sub("", key))
    number = _WHOLE_NUMBER.fullmatch(key)
    if number is None:
        return key
    digits = number[1]
    return digits if len(digits) <= _KEPT_DIGITS else digits[:_KEPT_DIGITS] + "?" * (len(digits) - _KEPT_DIGITS)
