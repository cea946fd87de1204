"""Damages files by a seed, and tells readers that answer with anything but a value or one sentence.

Each reader runs in a forked process: a crash of native code, a hang and a rise of memory are findings like a traceback.
"""

from __future__ import annotations

import copy
import json
import os
import random
import resource
import shutil
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_utils.errors import InputError, RankError
from data_utils.shard_file import ShardError

EXPECTED = (InputError, ShardError, RankError)
SECONDS = 10  # of one input; a busy machine takes a while
MEMORY = 6 * 2**30  # of addresses beyond what the process has before
TOKENS = (
    *(b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\r\n", b'"', b",", b"\t", b"{", b"[" * 3000, b"]", b"null", b"NaN"),
    *(b"-1", b"1e999", b"9" * 5000, b"2026-01-01", b"../x", b"/etc/passwd", b"&a [*a]", b"!!python/name:os.system "),
    *(b"\x1b[2J", "\u202e".encode(), "\U0001f600".encode(), b"\xed\xa0\x80", b"\x80" * 4, b"\x7f\xff\xff\xff"),
)
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**400, 0.5, -1e308, float("nan"), float("inf")),
    *("", "x", "../x", "\x1b[31m", "\ud800", "a" * 5000, "2026-01-01", "/dev/zero", "1e3"),
    *([], [None], ["x"], [[[]]], {}, {"x": None}, {"x": {"y": []}}),
)


@dataclass(frozen=True)
class Reader:
    """A way in.

    Attributes:
        name: for messages.
        make: writes sound files into an empty folder.
        read: reads them as the program does; what it writes goes into the folder too.
        files: globs of the files that are damaged.
        share: of all inputs.
    """

    name: str
    make: Callable[[Path], None]
    read: Callable[[Path], object]
    files: Sequence[str]
    share: int


def fuzz(reader: Reader, folder: Path, seeds: Sequence[int]) -> list[str]:
    """What was wrong, by seed; sound files are read first, and must be."""
    sound = folder / "sound"
    sound.mkdir(parents=True)
    reader.make(sound)
    findings, seeds = [], list(seeds)
    while seeds:
        done, found = _run_forked(reader, sound, folder / "damaged", seeds)
        findings += found
        seeds = seeds[done:]
    return findings


def _run_forked(reader: Reader, sound: Path, damaged: Path, seeds: Sequence[int]) -> tuple[int, list[str]]:
    """Inputs that were done, the last of which may have ended the process, and what was found."""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(out)
        code = 1
        try:
            with os.fdopen(into, "w", buffering=1) as report:
                _read_all(reader, sound, damaged, seeds, report.write)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(into)
    lines = []
    with os.fdopen(out) as report:
        lines = [json.loads(line) for line in report]
    status = os.waitpid(child, 0)[1]
    found = [line for line in lines if line]
    if status:
        end = os.waitstatus_to_exitcode(status)
        why = signal.Signals(-end).name if end < 0 else f"exit code {end}"
        if end > 0:
            raise RuntimeError(f"{reader.name}: the sound files can't be read")
        found.append(f"{reader.name}, seed {seeds[len(lines)]}: ended by {why}")
        return len(lines) + 1, found
    return len(lines), found


def _read_all(
    reader: Reader, sound: Path, damaged: Path, seeds: Sequence[int], report: Callable[[str], object]
) -> None:
    """In the forked process: a line of JSON for each input, "" or what was wrong."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, hard))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends also what native code hangs in
    _copy(sound, damaged)
    reader.read(damaged)
    names = sorted({path.relative_to(sound) for glob in reader.files for path in sound.glob(glob) if path.is_file()})
    for seed in seeds:
        _copy(sound, damaged)
        rng = random.Random(f"{reader.name} {seed}")
        path = damaged / rng.choice(names)
        path.write_bytes(damage(path.read_bytes(), path.suffix, rng))
        signal.alarm(SECONDS)
        wrong = ""
        try:
            reader.read(damaged)
        except EXPECTED as error:
            if not str(error).strip():
                wrong = f"{reader.name}, seed {seed}: an empty message"
        except BaseException as error:  # panics of Rust are no Exception
            place = traceback.extract_tb(error.__traceback__)[-1]
            reason = f"{type(error).__name__}: {error}"[:200]
            wrong = f"{reader.name}, seed {seed}: {reason!r} in {Path(place.filename).name}:{place.lineno}"
        signal.alarm(0)
        report(json.dumps(wrong) + "\n")


def _copy(sound: Path, damaged: Path) -> None:
    shutil.rmtree(damaged, ignore_errors=True)
    shutil.copytree(sound, damaged)


def damage(content: bytes, suffix: str, rng: random.Random) -> bytes:
    """Other bytes in place of these: one to four edits, or for JSON another value in some place."""
    if suffix == ".json" and rng.random() < 0.6:
        return _damage_json(content, rng)
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        _edit(changed, rng)
    return bytes(changed)


def _edit(content: bytearray, rng: random.Random) -> None:
    place, length = rng.randint(0, len(content)), rng.choice((1, 1, 2, 4, 16, 300))
    match rng.choice(("flip", "flip", "byte", "token", "delete", "repeat", "zero", "cut", "move")):
        case "flip" if place < len(content):
            content[place] ^= 1 << rng.randrange(8)
        case "byte" if place < len(content):
            content[place] = rng.choice((0, 0xFF, 0x7F, 0x80, rng.randrange(256)))
        case "token":
            content[place : place + rng.choice((0, 0, length))] = rng.choice(TOKENS)
        case "delete":
            del content[place : place + length]
        case "repeat":
            content[place:place] = content[place : place + length] * rng.choice((1, 1, 3))
        case "zero":
            content[place : place + length] = bytes(len(content[place : place + length]))
        case "cut":
            del content[place:]
        case "move":
            piece = bytes(content[place : place + length])
            del content[place : place + length]
            target = rng.randint(0, len(content))
            content[target:target] = piece


def _damage_json(content: bytes, rng: random.Random) -> bytes:
    value = json.loads(content)
    places = list(_places(value))
    if not places:
        return json.dumps(rng.choice(ODD_VALUES)).encode()
    for holder, key in rng.sample(places, min(len(places), rng.choice((1, 1, 1, 2)))):
        if rng.random() < 0.2:
            holder.pop(key, None) if isinstance(holder, dict) else holder.clear()
        elif isinstance(holder, dict) or key < len(holder):
            holder[key] = copy.deepcopy(rng.choice(ODD_VALUES))
    return json.dumps(value).encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each place of a value in its dict or list."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(items):
        yield value, key
        yield from _places(item)
