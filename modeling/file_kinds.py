"""What stands in the place of a file that should be something else: told by its first bytes, with the remedy."""

from __future__ import annotations

import codecs
import re

_LFS = b"version https://git-lfs.github.com/spec/"
_ANNEX = re.compile(rb"(?:\.\./)*(?:\.git|/)?/?annex/objects/")
POINTER = "a Git LFS pointer in the place of the file itself; fetch the files with `git lfs pull`"
_ANNEX_POINTER = "a git-annex pointer in the place of the file itself; fetch the files with `git annex get`"
_CONVERT = "convert it to JPEG or PNG"
_PAGE = "(servers send one in the place of a file that they don't give: download it again)"
PARQUET = "a Parquet file"
_BEGINNINGS = (
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive or an office document"),
    (b"\x1f\x8b", "a gzip archive; unpack it"),
    (b"PAR1", PARQUET),
    (b"8BPS", f"a Photoshop picture; {_CONVERT}"),
    (b"\xff\x0a", f"a JPEG XL picture; {_CONVERT}"),
    (b"\0\0\0\x0cJXL ", f"a JPEG XL picture; {_CONVERT}"),
)
# Of the container that begins with the word ftyp: who wrote it.
_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"), f"a HEIC picture; {_CONVERT}"),
    **dict.fromkeys((b"avif", b"avis"), f"an AVIF picture; {_CONVERT}"),
}
_HTML = re.compile(rb"<(?:!--|!doctype html|(?:html|head|body|title|meta|script|style|center|div|p|h[1-6]|br)[\s/>])")
_PICTURE = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n|GIF8[79]a|RIFF.{4}WEBP", re.DOTALL)
_LOOKED_AT, _SHOWN = 1024, 40


def find_pointer(source: bytes) -> str | None:
    """What is wrong with a file of which only a pointer was checked out; None for others."""
    if source.startswith(_LFS):
        return POINTER
    return _ANNEX_POINTER if _ANNEX.match(source[:_LOOKED_AT]) else None


def name_kind(source: bytes) -> str | None:
    """What a file that is no picture, or no list, most likely is, and what to do; None where nobody can tell."""
    if kind := find_pointer(source) or _name_beginning(source):
        return kind
    if source[4:8] == b"ftyp":
        return _BRANDS.get(source[8:12], "a film (MP4 or QuickTime)")
    if source and not source.strip(b"\0"):
        return "nothing but zeros, as a copy that was cut off leaves; copy it again"
    head = source[:_LOOKED_AT].removeprefix(codecs.BOM_UTF8)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        head = head[2:].replace(b"\0", b"")
    return _name_markup(head.lstrip().lower())


def name_other_than_text(source: bytes) -> str | None:
    """What a file that should be a text surely is; None where it may be one."""
    pointer = find_pointer(source)
    if pointer is not None or b"\0" not in source[:_LOOKED_AT]:
        return pointer
    return "a picture in the place of a text" if _PICTURE.match(source) else _name_beginning(source)


def name_text(source: bytes) -> str | None:
    """The first words of a file of plain text in the place of a picture, as servers and programs leave; else None."""
    words = re.match(rb"[\n\r\t -~]{8,}", source[:_LOOKED_AT])
    if words is None:
        return None
    return f"not a picture in a known format, but a text that begins with {words[0].decode().strip()[:_SHOWN]!r}"


def _name_beginning(source: bytes) -> str | None:
    return next((kind for beginning, kind in _BEGINNINGS if source.startswith(beginning)), None)


def _name_markup(head: bytes) -> str | None:
    if _HTML.match(head):
        return f"an HTML page {_PAGE}"
    if b"<svg" in head and head.startswith((b"<svg", b"<?xml", b"<!doctype svg")):
        return f"an SVG drawing; {_CONVERT}"
    if head.startswith(b"<?xml"):
        return f"an XML document {_PAGE}"
    return f"a JSON document {_PAGE}" if re.match(rb'\{\s*"|\[\s*[\{"\]]', head) else None
