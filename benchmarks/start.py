"""A second start of train.py: seconds from `main` to the first step, on prepared data."""

from __future__ import annotations

import sys
import time
from typing import Any
from unittest.mock import patch

from benchmarks.results import Result
from benchmarks.setting import Setting

TARGET = 3.0


def measure(setting: Setting) -> list[Result]:
    """Launches of train.py with the shipped defaults; the first one, which prepares the data, isn't counted."""
    words = ("-m", "benchmarks.start", *setting.flags())
    values = [float(setting.launch(*words).split()[-1]) for _ in range(setting.repeats + 1)][1:]
    note = "from the call of main, all modules of train.py imported, to the begin of the first step"
    return [Result("second start", values, "s", target=TARGET, at_least=False, note=note)]


class FirstStep(Exception):
    """The first step has come."""


def main() -> None:
    """Run train.py up to its first step and print the seconds."""
    import train
    import training.experiments.comparison  # noqa: F401 (imported by main otherwise)
    from training.engine.trainer import SentimentTrainer

    def stop(*args: Any, **kwargs: Any) -> None:
        raise FirstStep

    begin = time.perf_counter()
    with patch.object(SentimentTrainer, "training_step", stop):
        try:
            train.main(sys.argv[1:])
        except FirstStep:
            print(time.perf_counter() - begin)


if __name__ == "__main__":
    main()
