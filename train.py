"""Train a classifier of text + picture pairs: `accelerate launch train.py --model clip --fusion attn --data_dir DIR`.

Every flag: `python train.py --help`. The way of the data: files -> rows -> decoded texts and uint8 pictures -> Arrow
cache -> split by group -> tokens -> batches -> towers -> fusion head -> loss. `training.experiments.training` goes it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from training.flags.parsing import check_command_line, parse_arguments
from training.launch import signals
from training.launch.console import exit_on_user_error, set_up_libraries, set_up_logging
from training.launch.ranks import shut_down_distributed


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, train, close; a mistake of the user's ends with one sentence and exit code 2."""
    set_up_logging()
    with signals.listen(), exit_on_user_error():
        words = sys.argv[1:] if argv is None else argv
        check_command_line(words)
        run(words)
        shut_down_distributed()


def run(words: Sequence[str]) -> None:
    """One training, or those of a cross-validation, a comparison, a sweep or a tuning.

    Raises:
        InputError: flags, recipe, data or pretrained parts can't be used.
    """
    # Take seconds, which neither --help nor a typing error costs.
    from training.experiments.comparison import read_comparison, run_comparison
    from training.experiments.cross_validation import cross_validate
    from training.experiments.training import train
    from training.experiments.tuning import run_tuning
    from training.experiments.tuning_recipe import read_tuning
    from training.heads.sweep import run_sweep
    from training.heads.sweep_recipe import read_sweep

    set_up_libraries()
    if (sweep := read_sweep(words)) is not None:
        run_sweep(sweep)
    elif (comparison := read_comparison(words)) is not None:
        run_comparison(comparison)
    elif (tuning := read_tuning(words)) is not None:
        run_tuning(tuning)
    else:
        flags = parse_arguments(words)
        (train if flags.training.folds is None else cross_validate)(flags)


if __name__ == "__main__":
    main()
