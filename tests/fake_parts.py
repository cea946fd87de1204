"""Parts of benchmarks for tests of what runs them; the setting is the folder where figures are kept."""

import json
import os
import signal
import subprocess
import sys
import time

from benchmarks.report import Result


def give_two(folder):
    yield Result("a figure", [1.0], "s")
    (record,) = folder.glob("*.json")
    kept = json.loads(record.read_text())["results"]
    yield Result("figures kept", [float(sum(map(len, kept.values())))], "", target=3.0)


def fail(folder):
    yield Result("a figure", [1.0], "s")
    raise ValueError("the first line\nand more\nnothing is left")


def die(folder):
    yield Result("a figure", [1.0], "s")
    os.kill(os.getpid(), signal.SIGKILL)


def hang(folder):
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield Result("a figure", [float(sleeper.pid)], "")
    time.sleep(600)
