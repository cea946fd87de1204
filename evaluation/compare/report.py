"""What a comparison says beside its figures, on the screen and in its files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_utils.system.files import write_csv, write_text
from evaluation.compare.models import Majority, ModelFigures, describe_models
from evaluation.compare.origins import remark_on_origins
from evaluation.compare.pairs import TESTS, PairResult, describe_pairs
from evaluation.compare.runs import ComparedRun
from evaluation.scores.sweep_summary import BOUNDED, FIGURES
from run_files.report import format_markdown, format_table, write_json


@dataclass(frozen=True)
class Comparison:
    """All of it.

    Attributes:
        num_rows: N, the same for all runs.
        label_names: the C classes' names.
        models: the runs, in the order given.
        majority: always answering the most frequent class.
        pairs: of the runs.
        remarks: sentences on what the figures can't say.
    """

    num_rows: int
    label_names: tuple[str, ...]
    models: list[ModelFigures]
    majority: Majority
    pairs: list[PairResult]
    remarks: list[str]

    @property
    def sentences(self) -> list[str]:
        """What each pair comes to, a sentence for each metric."""
        return [pair.sentence(metric) for metric in TESTS for pair in self.pairs]


def format_comparison(comparison: Comparison) -> str:
    """For the screen."""
    table = format_table(describe_models(comparison.models, comparison.majority))
    lines = [_title(comparison), "", table, "", *comparison.sentences, "", *comparison.remarks]
    return "\n".join(lines)


def write_comparison(folder: Path, comparison: Comparison) -> None:
    """Write comparison.md, comparison.csv (runs), pairs.csv and comparison.json.

    Raises:
        InputError: the folder can't be written to.
    """
    _write_markdown(folder / "comparison.md", comparison)
    _write_models_csv(folder / "comparison.csv", comparison)
    _write_pairs_csv(folder / "pairs.csv", comparison.pairs)
    write_json(folder / "comparison.json", _as_json(comparison))


def find_remarks(
    runs: Sequence[ComparedRun], models: Sequence[ModelFigures], majority: Majority, *, num_left_out: int
) -> list[str]:
    """What a reader of the figures has to know.

    Args:
        runs: on the same rows.
        models: their figures, in the same order.
        majority: of these rows.
        num_left_out: rows that only some of the runs judge, for --common_rows.
    """
    return [*_remarks_on_rows(runs, num_left_out), *_remarks_on_seeds(runs), *_remarks_on_scores(models, majority)]


def _remarks_on_rows(runs: Sequence[ComparedRun], num_left_out: int) -> Iterable[str]:
    num_rows = len(runs[0].table.guids)
    yield (
        f"The intervals are over the {num_rows:,} rows: they hold neither the variance of training nor any choice made "
        "on these rows, and those of differences are for each pair by itself."
    )
    if num_left_out:
        yield f"{num_left_out:,} rows that not all runs judge are left out; the {num_rows:,} common ones are compared."
    kinds = {run.kind for run in runs}
    if kinds == {"split"}:
        yield (
            f"These are the {num_rows:,} validation rows of one split: another split may give another order. "
            "train.py --folds judges every row once."
        )
    elif {"split", "folds"} <= kinds:
        yield "Some runs are of folds, some of one split: their models were trained on different numbers of rows."
    yield from remark_on_origins([run.name for run in runs], [run.origin for run in runs], runs[0].table.guids)
    if "folds" in kinds:
        yield "The models of a run of folds share most of their training rows, so its rows are not quite independent."
    chosen = [f"{run.name} ({run.chosen_by})" for run in runs if run.chosen_by]
    if chosen:
        yield f"The best epoch was chosen on the very rows that are compared here, which flatters: {', '.join(chosen)}."
    if len(runs) > 2:
        yield f"The best of {len(runs)} runs is flattered: judge it on rows that none of them has seen."


def _remarks_on_seeds(runs: Sequence[ComparedRun]) -> Iterable[str]:
    # A bare file doesn't say how many trainings it is of.
    known = [run for run in runs if run.kind != "file"]
    counts = [len(run.judged) for run in known]
    if any(count > 1 for count in counts):
        yield (
            "Figures are means over seeds ± standard deviation. The tests of pairs are on the mean probabilities of a "
            "run's seeds, whose own figures are the columns 'seeds averaged'."
        )
    if len(set(counts)) > 1:
        yield (
            f"The runs have {', '.join(map(str, counts))} seeds: averaging over seeds tends to raise a score by "
            "itself, so the tests favour a run of more of them."
        )
    alone = [run.name for run in known if len(run.judged) == 1]
    if alone:
        yield f"One seed alone, which may be luck: {', '.join(alone)}. train.py --folds K --seeds S shows how much."


def _remarks_on_scores(models: Sequence[ModelFigures], majority: Majority) -> Iterable[str]:
    for model in models:
        accuracy = model.mean("accuracy")
        if accuracy <= majority.accuracy:
            yield (
                f"{model.name} ({accuracy:.3f}) does not beat always answering {majority.label} "
                f"({majority.accuracy:.3f})."
            )


def _title(comparison: Comparison) -> str:
    return f"{len(comparison.models)} runs on the same {comparison.num_rows:,} rows, 95 % intervals in brackets"


def _write_markdown(path: Path, comparison: Comparison) -> None:
    parts = [
        f"# {_title(comparison)}",
        format_markdown(describe_models(comparison.models, comparison.majority)),
        "![Accuracy and macro-F1 of each run](comparison.png)",
        "## Pairs",
        "\n".join(f"- {sentence}" for sentence in comparison.sentences),
        format_markdown(describe_pairs(comparison.pairs)),
        "## To be known",
        "\n".join(f"- {remark}" for remark in comparison.remarks),
    ]
    write_text(path, "\n\n".join(parts) + "\n")


def _write_models_csv(path: Path, comparison: Comparison) -> None:
    ends = [f"{name}_{end}" for name in BOUNDED for end in ("low", "high")]
    figures = [*(f"{name}_{kind}" for name in FIGURES for kind in ("mean", "std")), *ends]
    averaged = [f"seeds_averaged_{name}" for name in FIGURES]
    costs = ["parameters", "trainable", "seconds"]
    rows = [["run", "path", "kind", "seeds", "rows", *figures, *averaged, *costs]]
    for model in comparison.models:
        values = [value for name in FIGURES for value in (model.mean(name), model.std(name))]
        bounds = [end for name in BOUNDED for end in model.intervals[name]]
        others = [model.seeds_averaged.get(name) for name in FIGURES]
        known = [model.name, model.path, model.kind, " ".join(model.seeds), comparison.num_rows]
        rows.append([*known, *values, *bounds, *others, *asdict(model.cost).values()])
    majority = comparison.majority
    always = [majority.accuracy, None, majority.macro_f1, None, majority.weighted_f1]
    known = [f"always {majority.label}", None, "majority", None, comparison.num_rows]
    rows.append([*known, *always, *[None] * (len(rows[0]) - len(known) - len(always))])
    write_csv(path, rows)


def _write_pairs_csv(path: Path, pairs: Sequence[PairResult]) -> None:
    columns = ("difference", "low", "high", "p", "rows_needed", "p_holm", "sentence")
    header = ["first", "second", "rows", "only_first_right", "only_second_right"]
    rows: list[list[Any]] = [[*header, *(f"{metric}_{column}" for metric in TESTS for column in columns)]]
    for pair in pairs:
        row = [pair.first, pair.second, pair.num_rows, pair.only_first, pair.only_second]
        for metric, difference in pair.differences.items():
            row += [*asdict(difference).values(), pair.adjusted[metric], pair.sentence(metric)]
        rows.append(row)
    write_csv(path, rows)


def _as_json(comparison: Comparison) -> dict[str, Any]:
    content = asdict(comparison)
    for written, model in zip(content["models"], comparison.models, strict=True):
        written["mean"] = {name: model.mean(name) for name in FIGURES}
        written["std"] = {name: model.std(name) for name in FIGURES}
    for written, pair in zip(content["pairs"], comparison.pairs, strict=True):
        written["sentences"] = {metric: pair.sentence(metric) for metric in TESTS}
    return content
