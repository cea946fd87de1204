"""Damages files by a seed, and tells readers that answer with anything but a value or one sentence.

Readers run in a program of their own: a crash of native code, a hang and a rise of memory are findings, too.
"""

from __future__ import annotations

import copy
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conftest import ROOT
from launching import warm_python

from data_utils.shards.shard_file import ShardError
from data_utils.system.refusals import RankError
from modeling.errors import InputError

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
    """A way in: `make` writes sound files into an empty folder, and `read` reads them there as the program does.

    `files` are globs of those that are damaged, `share` is that of all inputs.
    """

    name: str
    make: Callable[[Path], None]
    read: Callable[[Path], object]
    files: Sequence[str]
    share: int


def fuzz(program: Path, reader: Reader, folder: Path, seeds: range) -> list[str]:
    """What was wrong, by seed; `program` calls `read_all` with the words that it gets. Sound files must be read."""
    findings: list[str] = []
    report, environment = folder / "report", os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    while seeds:
        report.write_text("")
        words = [str(program), reader.name, str(folder), str(seeds.start), str(seeds.stop)]
        done = subprocess.run([str(warm_python().program), *words], cwd=ROOT, env=environment)
        lines = [json.loads(line) for line in report.read_text().splitlines()]
        findings += [line for line in lines if line]
        if done.returncode and not lines:
            raise RuntimeError(f"{reader.name}: the sound files can't be read")
        if done.returncode:  # the first line is of the sound files
            findings.append(f"{reader.name}, seed {seeds[len(lines) - 1]}: ended with {done.returncode}")
        seeds = seeds[len(lines) - 1 + bool(done.returncode) :]
    return findings


def read_all(reader: Reader, folder: Path, seeds: range) -> None:
    """Damage and read; writes a line of JSON to `folder`/report for the sound files and each input: "" or the fault."""
    sound, damaged = folder / "sound", folder / "damaged"
    if not sound.exists():
        sound.mkdir()
        reader.make(sound)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, hard))
    with (folder / "report").open("a", buffering=1) as report:
        _copy(sound, damaged)
        reader.read(damaged)
        report.write('""\n')
        found = {path for glob in reader.files for path in sound.glob(glob) if path.is_file()}
        names = sorted(path.relative_to(sound) for path in found)
        for seed in seeds:
            _copy(sound, damaged)
            rng = random.Random(f"{reader.name} {seed}")
            path = damaged / rng.choice(names)
            path.write_bytes(damage(path.read_bytes(), path.suffix, rng))
            fault = _find_fault(reader, damaged)
            report.write(json.dumps(fault and f"{reader.name}, seed {seed}: {fault}") + "\n")


def _find_fault(reader: Reader, damaged: Path) -> str:
    """What is wrong with how a reader answers; a hang is ended with the process, also in native code."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(SECONDS)
    try:
        reader.read(damaged)
    except EXPECTED as error:
        return "" if str(error).strip() else "an empty message"
    except BaseException as error:  # panics of Rust are no Exception
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {str(error)[:200]!r} in {Path(place.filename).name}:{place.lineno}"
    finally:
        signal.alarm(0)
    return ""


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
