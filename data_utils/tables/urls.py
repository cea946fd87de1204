"""Pictures that a table names by their URLs: fetched once, into a folder of the cache."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Collection, Mapping
from hashlib import sha256
from pathlib import Path

from aiohttp import ClientSession, ClientTimeout, DummyCookieJar

from data_utils.console.progress import progress
from data_utils.prepare.cache import hold_lock
from data_utils.system.bounded import MAX_DOCUMENT, MEBIBYTE, parse_json, read_bounded
from data_utils.system.files import remove_leftovers, write_bytes, write_text
from modeling.file_kinds import name_kind, name_text

WAIT, TOTAL = 10.0, 60.0  # seconds: to connect, and between two reads; for one picture in all
MAX_BYTES = 64 * MEBIBYTE  # of one picture; as many are held at once as there are connections
MAX_REDIRECTS = 5
_CONNECTIONS = 8


def fetch_urls(urls: Collection[str], folder: Path) -> dict[str, Path | str]:
    """Fetch by http(s) what does not lie in `folder` yet; processes and jobs that ask at the same time do so once.

    Returns:
        Of each URL the file, or why it could not be fetched; the next start tries that again.

    Raises:
        InputError, OSError: the folder can't be written.
    """
    asked = time.time()
    files = {url: folder / sha256(url.encode()).hexdigest() for url in urls}
    failed: dict[str, str] = {}
    if not all(file.is_file() for file in files.values()):
        folder.mkdir(parents=True, exist_ok=True)
        with hold_lock(folder):
            remove_leftovers(folder)
            notes = folder / "failed.json"
            # What another rank could not fetch while this one waited for it: both must see the same rows.
            if notes.is_file() and notes.stat().st_mtime >= asked:
                failed = parse_json(read_bounded(notes, MAX_DOCUMENT))
            absent = {url: file for url, file in files.items() if url not in failed and not file.is_file()}
            failed |= asyncio.run(_fetch_all(absent))
            write_text(notes, json.dumps(failed))
    return {url: failed.get(url, file) for url, file in files.items()}


async def _fetch_all(files: Mapping[str, Path]) -> dict[str, str]:
    """Write what each URL gives into its file; returns why, of those that could not be fetched."""
    failed = {}
    waiting = iter(progress(files, description="Fetching pictures", unit="pictures", stays=bool(files)))

    async def work(session: ClientSession) -> None:
        for url in waiting:
            try:
                content = await _fetch(session, url)
            except Exception as error:  # foreign servers make the library raise errors of every kind
                failed[url] = " ".join(f"{type(error).__name__}: {error}".split())[:200].rstrip(": ")
            else:
                write_bytes(files[url], content)

    limits = ClientTimeout(total=TOTAL, connect=WAIT, sock_read=WAIT)
    async with ClientSession(timeout=limits, cookie_jar=DummyCookieJar(), trust_env=True) as session:
        await asyncio.gather(*(work(session) for _ in range(_CONNECTIONS)))
    return failed


async def _fetch(session: ClientSession, url: str) -> bytes:
    """What a URL gives; any exception says why it gives no picture."""
    # aiohttp opens and follows http and https alone, and stops at the redirect that reaches its limit.
    async with session.get(url, max_redirects=MAX_REDIRECTS + 1) as answer:
        if answer.status != 200:
            raise ValueError(f"the server answers {answer.status}")
        content = bytearray()
        async for piece in answer.content.iter_any():
            content += piece
            if len(content) > MAX_BYTES:
                raise ValueError(f"more than {MAX_BYTES:,} bytes")
    found = bytes(content)
    if reason := name_kind(found) or name_text(found):
        raise ValueError(reason)
    return found
