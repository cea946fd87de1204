"""Measurements for tests of what runs them; the setting is the folder where figures are kept."""

import json
import os
import signal
import subprocess
import sys
import time

from benchmarks.results import Result


def measure(folder):
    yield Result("a figure", [1.0], "s")
    yield Result("another one", [2.0], "s", target=3.0)


def count_kept(folder):
    (record,) = folder.glob("*.json")
    kept = json.loads(record.read_text())["results"]
    yield Result("figures kept before", [float(sum(map(len, kept.values())))], "")


def fail(folder):
    yield Result("a figure", [1.0], "s")
    raise ValueError("the first line\nnothing is left")


def die(folder):
    yield Result("a figure", [1.0], "s")
    os.kill(os.getpid(), signal.SIGKILL)


def hang(folder):
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield Result("a figure", [float(sleeper.pid)], "")
    time.sleep(600)
