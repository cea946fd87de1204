"""A tuning's recipe: flags of train.py, and a section `tune` of lists and ranges, from which trials are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from evaluation.scores.tasks import TASKS
from modeling.errors import InputError
from training.build.plan import check_sources
from training.experiments.cross_validation import check_supported
from training.flags.parsing import Flags, build_parser, parse_arguments
from training.flags.recipe import SWEPT, TUNE, find_recipe, join_words, read_recipe, to_flags
from training.flags.search_space import Axis, read_space, read_trials
from training.heads.sweep_recipe import check_supported as check_cached
from training.heads.sweep_recipe import part_axes, without_trackers
from training.launch.console import quiet


class TuneRecipe(NamedTuple):
    """What a tuning is to do.

    Attributes:
        name: of the file.
        words: the fixed flags as words of a command line.
        axes: the tuned flags with their values, without those that the command line gives.
        num_trials: of each search.
        num_folds: K; each of K searches chooses without the rows of one fold, and one more with all.
        flags: of a first trial, which has the folds.
        heads: that are tried.
        is_cached: whether trials are heads over frozen towers, which train over what those gave.
    """

    name: str
    words: tuple[str, ...]
    axes: Mapping[str, Axis]
    num_trials: int
    num_folds: int
    flags: Flags
    heads: tuple[str, ...]
    is_cached: bool

    def parse(self, values: Mapping[str, Any]) -> Flags:
        """The flags of a trial by the values of its tuned flags, with the labels of `flags`."""
        flags = parse_arguments([*self.words, *to_flags(values)])
        return flags._replace(data=replace(flags.data, labels=self.flags.data.labels))

    @property
    def metric(self) -> str:
        """By which trials are chosen."""
        return str(self.flags.training.metric_for_best_model).removeprefix("eval_")

    def list_values(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Every flag that a trial was given, as a recipe has them; none that a recipe or another folder can't have."""
        given = build_parser("").parse([*self.words, *to_flags(values)])
        return {name: value for name, value in given.items() if name not in ("output_dir", "trust_remote_code")}


def read_tuning(argv: Sequence[str]) -> TuneRecipe | None:
    """The tuning that the command line asks for with `--tune recipe.yaml --trials N`, all of it checked; else None."""
    starter, path, rest = find_recipe(argv)
    if starter != "--tune":
        return None
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise InputError("Got --tune, which needs the package optuna: pip install optuna.") from error
    fixed = {name: value for name, value in read_recipe(path, TUNE).items() if value is not None}
    space, num_trials = read_space(path, fixed.pop(TUNE, None)), read_trials(argv)
    axes, named = part_axes(path, TUNE, space.axes, fixed, rest)
    if not axes:
        raise InputError(f"The command line gives all flags that {path} tunes; leave out those that are to be tuned.")
    words = tuple(join_words(fixed, rest))
    first = {name: axis.ends()[0] for name, axis in axes.items()}
    flags: list[Flags] = []
    for values in ({name: end} for name, axis in axes.items() for end in axis.ends()):
        with quiet(bool(flags)):
            flags.append(parse_arguments([*words, *to_flags(first | values)]))
            check_sources(flags[-1].model)
    model, data, args = flags[0]
    _check_judged(flags[0])
    first_flags = Flags(model, data, args.replace(folds=space.num_folds))
    check_supported(first_flags)
    if "report_to" not in named:
        first_flags = without_trackers(first_flags)
    heads = tuple(dict.fromkeys(str(each.model.fusion) for each in flags))
    is_cached = axes.keys() <= set(SWEPT) and all(map(_is_cached, flags))
    return TuneRecipe(path.stem, words, axes, num_trials, space.num_folds, first_flags, heads, is_cached)


def _check_judged(flags: Flags) -> None:
    """`InputError` where trials couldn't be told apart by rows that choose, or not by a figure with an interval."""
    _, data, args = flags
    metrics = TASKS[data.task].interval_scores
    metric = str(args.metric_for_best_model).removeprefix("eval_")
    for fault, remedy in (
        (data.val_ratio == 0, "--val_ratio 0, but a tuning chooses by validation rows; raise it"),
        (args.seeds > 1, f"--seeds {args.seeds}, but a tuning tries each trial once; leave it out"),
        (args.push_to_hub, "--push_to_hub, but a tuning keeps no model; leave it out"),
        (args.eval_strategy == "no", "--eval_strategy no, but a tuning chooses by evaluations; leave it out"),
        (metric not in metrics, f"--metric_for_best_model {metric}; a tuning takes one of {', '.join(metrics)}"),
        (
            data.max_train_samples is not None or data.max_eval_samples is not None,
            "--max_train_samples or --max_eval_samples, but a tuning deals all rows into folds; leave it out",
        ),
    ):
        if fault:
            raise InputError(f"Got {remedy}.")


def _is_cached(flags: Flags) -> bool:
    try:
        check_cached(flags.model, flags.training)
    except InputError:
        return False
    return flags.data.task == "single_label"
