"""Train a classifier of text + picture pairs: `accelerate launch train.py --model clip --fusion attn --data_dir DIR`.

Every flag: `python train.py --help`. What is done: `training.experiments.experiment`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from training.flags.parsing import check_command_line
from training.launch import signals
from training.launch.console import clear_errors, set_up_logging
from training.launch.ranks import part_ranks


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, build, run, close; a mistake of the user's ends with one sentence and exit code 2."""
    set_up_logging()
    with signals.listen(), clear_errors():
        words = sys.argv[1:] if argv is None else argv
        check_command_line(words)
        from training.experiments.experiment import (
            start,  # takes seconds, which neither --help nor a typing error costs
        )

        start(words)
        part_ranks()


if __name__ == "__main__":
    main()
