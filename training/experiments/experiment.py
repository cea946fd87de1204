"""What train.py does: one training, those of a cross-validation, a comparison or a sweep."""

from __future__ import annotations

from collections.abc import Sequence

from training.experiments.comparison import read_comparison, run_comparison
from training.experiments.cross_validation import cross_validate
from training.experiments.training import train
from training.flags.parsing import parse_arguments
from training.heads.sweep import run_sweep
from training.heads.sweep_recipe import read_sweep
from training.launch.console import set_up_libraries


def start(argv: Sequence[str]) -> None:
    """Train what the command line asks for.

    Raises:
        InputError: flags, recipe, data or pretrained parts can't be used.
    """
    set_up_libraries()
    if (sweep := read_sweep(argv)) is not None:
        run_sweep(sweep)
    elif (comparison := read_comparison(argv)) is not None:
        run_comparison(comparison)
    else:
        model, data, args = parse_arguments(argv)
        (train if args.folds is None else cross_validate)(model, data, args)
