"""What the searches of a tuning found, and how far choosing has flattered the winners: tuning.json and tuning.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from scipy import stats

from data_utils.console.tables import format_interval, format_markdown, format_table
from data_utils.page.render import write_tables
from data_utils.system.files import write_text
from evaluation.scores.scoring import score_answers, task_of_figures
from evaluation.scores.tasks import Figures
from run_files.output import write_json
from run_files.predictions_csv import PredictionTable
from run_files.tuning_folder import TuningFolder, Winner


def score_winners(folder: TuningFolder, winners: Sequence[Winner]) -> list[dict[str, Figures]]:
    """What each winner is worth on the rows that it was chosen by (val) and on those held out (test), if there are any.

    The last of K + 1 winners is that of the search over all rows, which nothing held out judges.
    """
    parts = [{"val": "inner", "test": "outer"}] * (len(winners) - 1) + [{"val": "inner"}]
    return [
        {name: _score(folder.read_answers(winner.search, part)) for name, part in each.items()}
        for winner, each in zip(winners, parts, strict=True)
    ]


def write_tuning(
    folder: TuningFolder, winners: Sequence[Winner], scores: Sequence[Mapping[str, Figures]], metric: str, *, sign: int
) -> tuple[Figures, str]:
    """Write tuning.json, tuning.md and predictions_outer.csv; of `metric` by `sign` less is better where that is -1.

    Returns:
        The figures of all held-out rows together, with that by which choosing flatters, and the table.
    """
    joined = PredictionTable.join([folder.read_answers(winner.search, "outer") for winner in winners[:-1]])
    joined.write(folder.path / "predictions_outer.csv")
    out_of_fold = _score(joined)
    searches = []
    for winner, parts in zip(winners, scores, strict=True):
        searches.append(asdict(winner) | {"inner": winner.value})
        for part, name in (("val", "inner"), ("test", "outer")):
            if part in parts:
                figures = parts[part]
                searches[-1].setdefault(name, figures[metric])
                searches[-1] |= {f"{name}_interval": figures[f"{metric}_interval"], f"{name}_rows": figures["num_rows"]}
    differences = np.array([sign * (each["inner"] - each["outer"]) for each in searches[:-1]])
    average = {
        "inner": float(np.mean([each["inner"] for each in searches[:-1]])),
        "outer": out_of_fold[metric],
        "outer_interval": out_of_fold[f"{metric}_interval"],
        "flattery": float(differences.mean()),
        "flattery_interval": _t_interval(differences),
    }
    found = {"metric": metric, "num_trials": winners[-1].num_trials, "folds": searches[:-1], "average": average}
    found |= {"final": searches[-1], "out_of_fold": out_of_fold}
    write_json(folder.path / "tuning.json", found)
    table, remarks = _tabulate(found), _remark(found)
    write_text(folder.path / "tuning.md", f"# {folder.path.name}\n\n{format_markdown(table)}\n\n{remarks}\n")
    write_tables(folder.report_file, folder.path.name, "Tuning", {"Searches": table}, remarks=[remarks])
    flattery = {name: value for name, value in average.items() if name.startswith("flattery")}
    return out_of_fold | flattery, f"{format_table(table)}\n\n{remarks}"


def _score(table: PredictionTable) -> Figures:
    return score_answers(table.probabilities, table.labels, table.answers, table.label_names)


def _t_interval(values: np.ndarray) -> list[float]:
    """95 % interval of the mean of K values by Student's t."""
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return [float(values.mean() - half), float(values.mean() + half)]


def _tabulate(found: dict[str, Any]) -> list[list[str]]:
    title = task_of_figures(found["out_of_fold"]).scores[found["metric"]]
    names = ", ".join(found["final"]["values"])
    rows = [["search", f"winner ({names})", f"{title}, chosen by", f"{title}, held out"]]
    for each in [*found["folds"], found["final"]]:
        winner = ", ".join(map(_show, each["values"].values()))
        judged = format_interval(each["outer"], each["outer_interval"]) if "outer" in each else ""
        label = f"without fold {each['search']}" if "outer" in each else "of all rows"
        rows.append([label, winner, format_interval(each["inner"], each["inner_interval"]), judged])
    average, baseline = found["average"], found["out_of_fold"]["majority_baseline"]
    judged = format_interval(average["outer"], average["outer_interval"])
    rows.insert(-1, ["all folds", "", f"{average['inner']:.3f}", judged])
    if found["metric"] in baseline:
        rows.append([f"always {baseline['label']}", "", "", f"{baseline[found['metric']]:.3f}"])
    return rows


def _show(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _remark(found: dict[str, Any]) -> str:
    average, interval = found["average"], found["average"]["flattery_interval"]
    return (
        f"Each winner of {found['num_trials']} trials was chosen by the validation part of its rows and then judged "
        "once by a fold that its search never saw. Choosing flatters its figure by "
        f"{average['flattery']:.3f} [{interval[0]:.3f}, {interval[1]:.3f}] (mean over {len(found['folds'])} folds, "
        "95 % interval by Student's t; folds share training rows, so that it is rather too narrow). Of the winner of "
        f"all rows expect {format_interval(average['outer'], average['outer_interval'])}, not "
        f"{found['final']['inner']:.3f}."
    )
