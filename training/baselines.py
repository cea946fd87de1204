"""What a model has to beat: `python -m training.baselines --config recipe.yaml --folds K --output_dir runs/baselines`.

Judged out of fold, on the folds of `train.py --folds K` with the same data and --seed: the class shares of the training
rows, and linear probes on the vectors that the pretrained towers give as they are, of texts, of pictures and of both. A
missing text or picture stands for the mean of the others.

The flags are those of train.py, of which data, towers and precision count. Both towers are frozen and their output is
cached, whatever the recipe says; its head and training play no part. All rows that a fold leaves are fitted on: there
is no validation part, and nothing is chosen by the rows that judge.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace

from modeling.errors import InputError
from training.flags.parsing import Flags, parse_arguments
from training.launch import signals
from training.launch.console import exit_on_user_error, set_up_libraries, set_up_logging
from training.launch.ranks import launched_world_size, uses_deepspeed, uses_fsdp

OUTPUT_DIR = "runs/baselines"
# Over the recipe's: "early" has both towers and reads vectors, and what chooses a best epoch has none to choose.
OWN_FLAGS = (
    *("--fusion", "early", "--freeze", "both", "--cache_features", "true", "--val_ratio", "0"),
    *("--load_best_model_at_end", "false", "--early_stopping_patience", "0"),
    *("--train_sampling_strategy", "random"),  # no order of training counts, and one by length is refused here
)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse and run; a mistake of the user's ends with one sentence and exit code 2."""
    set_up_logging()
    with signals.listen(), exit_on_user_error():
        flags = read_flags(sys.argv[1:] if argv is None else argv)
        set_up_libraries()
        from training.experiments.baseline_run import run_baselines  # takes seconds, so after the flags are judged

        run_baselines(flags)


def read_flags(argv: Sequence[str]) -> Flags:
    """The flags of train.py as they count here; a recipe's own --output_dir is its run's, and is not used."""
    if launched_world_size() > 1 or uses_deepspeed() or uses_fsdp():
        raise InputError("The baselines take one process: start them with python -m training.baselines, without ranks.")
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--output_dir", default=OUTPUT_DIR)
    known, rest = finder.parse_known_args(argv)
    words = [*rest, *OWN_FLAGS, "--output_dir", known.output_dir]
    flags = parse_arguments(words, description="Judge the baselines that a model has to beat.")
    _check_supported(flags)
    return flags._replace(model=replace(flags.model, unfreeze_last=None))


def _check_supported(flags: Flags) -> None:
    from training.experiments.cross_validation import check_supported  # takes seconds, so after the flags are parsed

    model, data, args = flags
    if args.folds is None:
        raise InputError(
            "--folds is missing: baselines are judged on the folds of train.py --folds K; give the same K."
        )
    if model.from_scratch or model.model == "baseline":
        raise InputError(
            "A linear probe reads towers as they are, which say nothing if their weights are random; use --model "
            "vilbert or clip without --from_scratch."
        )
    data.refuse_tasks("a baseline")
    check_supported(flags)
    for flag, value, reason in (
        ("--max_train_samples", data.max_train_samples, "leaves out rows of a training"),
        ("--max_eval_samples", data.max_eval_samples, "leaves out rows of a validation part"),
        ("--deepspeed", args.deepspeed, "shards what is trained"),
        ("--resume_from_checkpoint", args.resume_from_checkpoint, "goes on with a training"),
    ):
        if value:
            raise InputError(f"Got {flag}, which {reason}; leave it out of the baselines.")


if __name__ == "__main__":
    main()
