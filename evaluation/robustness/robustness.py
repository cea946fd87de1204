"""How a model's answers hold when texts or pictures are missing or worse than those it was trained on.

Pictures are corrupted as the model gets them, decoded and resized (a blur of 1 % is one of the resized picture); texts
after the cleaning. Which rows lose a modality, which words are mistyped and where there is noise depends on the seed,
the row's guid and the kind of corruption alone. The levels of a kind share one draw: the rows without a text at 10 %
are among those at 25 %, and a stronger noise is the same noise, stronger.

The kinds are those of Hendrycks and Dietterich (2019, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations") that a photo on the web has met; the levels are ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import ArrayLike, NDArray

from data_utils.console.tables import format_markdown, format_table
from data_utils.prepare.collator import refuse_several_pictures
from data_utils.system.files import write_text
from evaluation.predict.inference import Batch, Outputs
from evaluation.predict.loaded_run import LoadedRun
from evaluation.robustness.corruptions import Pixels, add_noise, blur_picture, compress_picture, make_generator, mistype
from evaluation.scores.metrics import INTERVAL_SCORES, SCORES
from evaluation.scores.scoring import score_predictions, tabulate_inputs
from modeling.batch import pad_texts
from modeling.ensemble import FeaturesOfEach, JointModels
from modeling.text import tokenize_batch
from run_files.output import write_figure, write_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Family(NamedTuple):
    """A kind of corruption: what happens and its unit, its levels from mild to strong, and the one without any."""

    title: str
    levels: tuple[float, ...]
    clean_level: float = 0


class Condition(NamedTuple):
    """One kind of corruption, a key of `FAMILIES` or clean, at one level in the family's unit."""

    family: str
    level: float = 0

    @property
    def name(self) -> str:
        """As in the tables: missing_text_25."""
        return self.family if self == CLEAN else f"{self.family}_{self.level:g}"


_SHOWN = (*INTERVAL_SCORES, "ece")
_NOTES = (
    "Pictures were corrupted as the model gets them, decoded and resized; texts after the cleaning. A share is the "
    "chance of each row, or of each word. All levels of one kind share one draw per row."
)

CLEAN = Condition("clean")
_SHARES = (10, 25, 50, 75, 100)
FAMILIES = {
    "missing_text": Family("texts missing, % of rows", _SHARES),
    "missing_image": Family("pictures missing, % of rows", _SHARES),
    "mixed": Family("text or picture missing, half each, % of rows", _SHARES),
    "blur": Family("blur, radius in % of the picture's side", (0.5, 1, 2, 4)),
    "noise": Family("noise, standard deviation in grey levels", (8, 16, 32, 64)),
    "jpeg": Family("JPEG quality", (75, 50, 25, 10), clean_level=100),
    "typos": Family("words mistyped, %", (10, 25, 50)),
}
MISSING, PICTURES = ("missing_text", "missing_image", "mixed"), ("blur", "noise", "jpeg")


def conditions_of(*families: str) -> list[Condition]:
    """The conditions of some families, from mild to strong."""
    return [Condition(family, level) for family in families for level in FAMILIES[family].levels]


CONDITIONS = (CLEAN, *conditions_of(*FAMILIES))


def lose_modalities(condition: Condition, draws: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which rows lose their text and which their picture; rows that lose something also lose it at a larger share.

    A share is the chance of each row, so that no row's fate depends on the others. In a mixture no row loses both.
    `draws` (N,) are numbers in [0, 1), the condition is of `MISSING`; returns (N,) and (N,).
    """
    numbers, share = np.asarray(draws), condition.level / 100
    if condition.family == "mixed":
        return numbers < share / 2, numbers >= 1 - share / 2
    lost, none = numbers < share, np.zeros(len(numbers), dtype=bool)
    return (lost, none) if condition.family == "missing_text" else (none, lost)


class AskCorrupted:
    """A step: class probabilities {condition's name: (B, M, C)}, clean ones being those of the plain evaluation.

    A batch is encoded clean once; missing modalities cost a fusion each, worse inputs a pass of their tower each. A
    head of one modality never sees the other's conditions: its answers there are the clean ones, and nothing is
    computed for them. What a row hasn't got stays missing.
    """

    def __init__(self, run: LoadedRun, rows: Dataset, *, seed: int = 0) -> None:
        refuse_several_pictures(rows, run.picture.image_size, "by --robustness; leave it out")
        self._run, self._guids, self._texts, self._seed = run, rows["guid"][:], rows["text"][:], seed

    def __call__(self, models: JointModels, batch: Batch) -> Outputs:
        texts, images = models.encode("text", batch), models.encode("image", batch)
        answers = {CLEAN.name: models.probabilities(texts, images)}
        draws = [generator.random() for generator in self._generators(batch, "missing")]
        for condition in conditions_of(*MISSING):
            has_text, has_image = (torch.from_numpy(~lost) for lost in lose_modalities(condition, draws))
            answers[condition.name] = models.probabilities(
                models.drop("text", texts, has_text.to(batch["row_index"].device)),
                models.drop("image", images, has_image.to(batch["row_index"].device)),
            )
        for condition in conditions_of(*PICTURES):
            worse = self._encode_pictures(models, batch, condition) if any(images) else images
            answers[condition.name] = models.probabilities(texts, worse)
        for condition in conditions_of("typos"):
            worse = self._encode_typos(models, batch, condition) if any(texts) else texts
            answers[condition.name] = models.probabilities(worse, images)
        return answers

    def _encode_pictures(self, models: JointModels, batch: Batch, condition: Condition) -> FeaturesOfEach:
        pictures = zip(batch["pixel_values"].cpu().numpy(), self._generators(batch, condition.family), strict=True)
        worse = np.stack([_corrupt_picture(pixels, condition, generator) for pixels, generator in pictures])
        return models.encode(
            "image", batch | {"pixel_values": torch.from_numpy(worse).to(batch["pixel_values"].device)}
        )

    def _encode_typos(self, models: JointModels, batch: Batch, condition: Condition) -> FeaturesOfEach:
        rows = zip(batch["row_index"].tolist(), self._generators(batch, condition.family), strict=True)
        texts = [mistype(self._texts[row], condition.level, generator) for row, generator in rows]
        tokens = tokenize_batch(texts, self._run.tokenizer, self._run.config.max_length)["input_ids"]
        padded = pad_texts(tokens, self._run.tokenizer.pad_token_id)
        input_ids, mask = (each.to(batch["input_ids"].device) for each in padded)
        return models.encode("text", batch | {"input_ids": input_ids, "attention_mask": mask})

    def _generators(self, batch: Batch, name: str) -> Iterator[np.random.Generator]:
        return (make_generator(self._seed, self._guids[row], name) for row in batch["row_index"].tolist())


def _corrupt_picture(pixels: Pixels, condition: Condition, generator: np.random.Generator) -> Pixels:
    if condition.family == "noise":
        return add_noise(pixels, condition.level, generator)
    return (blur_picture if condition.family == "blur" else compress_picture)(pixels, condition.level)


def summarise_robustness(
    probabilities: Mapping[str, ArrayLike], labels: ArrayLike, label_names: Sequence[str]
) -> dict[str, Any]:
    """The figures of robustness.json, from (N, C) by the condition's name.

    Returns:
        num_rows, majority_baseline {label, accuracy}, conditions {name: family, level and the metrics of
        `score_predictions`} and remarks, sentences on what can be overlooked in the table.
    """
    scores = {each: score_predictions(probabilities[each.name], labels, label_names) for each in CONDITIONS}
    baseline, remarks = scores[CLEAN]["majority_baseline"], []
    beaten: dict[str, list[str]] = {}
    for condition, metrics in scores.items():
        if metrics["accuracy"] <= baseline["accuracy"]:
            beaten.setdefault(condition.family, []).append(f" {condition.level:g}" if condition != CLEAN else "")
    if beaten:
        answer = f"always answering {baseline['label']} ({baseline['accuracy']:.3f})"
        found = "; ".join(f"{family}{','.join(levels)}" for family, levels in beaten.items())
        remarks.append(f"Not more accurate than {answer}: {found}.")
    unchanged = [
        family
        for family in FAMILIES
        if all(np.array_equal(probabilities[each.name], probabilities[CLEAN.name]) for each in conditions_of(family))
    ]
    if unchanged:
        remarks.append(f"No answer changes under {', '.join(unchanged)}: the model reads nothing there.")
    return {
        "num_rows": scores[CLEAN]["num_rows"],
        "majority_baseline": baseline,
        "conditions": {condition.name: condition._asdict() | metrics for condition, metrics in scores.items()},
        "remarks": remarks,
    }


def format_robustness(summary: dict[str, Any], *, title: str) -> str:
    """The table of all conditions and the remarks as plain text."""
    heading = f"robustness on {title}: {summary['num_rows']} rows, 95 % intervals in brackets"
    table = format_table(tabulate_inputs("condition", summary["conditions"], _SHOWN))
    return "\n".join([heading, "", table, "", *summary["remarks"]]).rstrip()


def write_robustness(path: Path, split: str, summary: dict[str, Any]) -> None:
    """Write the table and the picture beside the JSON at `path`: .csv, .md and .png."""
    rows = []
    for name, metrics in summary["conditions"].items():
        row = {"condition": name, **{key: metrics[key] for key in ("family", "level", "num_rows")}}
        for score in INTERVAL_SCORES:
            low, high = metrics[f"{score}_interval"]
            row |= {score: metrics[score], f"{score}_low": low, f"{score}_high": high}
        rows.append({**row, "ece": metrics["ece"]})
    write_table(path.with_suffix(".csv"), rows)
    intro = f"{summary['num_rows']} rows ({split}); 95 % intervals in brackets (bootstrap over rows). {_NOTES}"
    picture = f"![Accuracy, macro-F1 and ECE by condition]({path.with_suffix('.png').name})"
    table = format_markdown(tabulate_inputs("condition", summary["conditions"], _SHOWN))
    lines = ["# Robustness", "", intro, "", table, "", *summary["remarks"], "", picture, ""]
    write_text(path.with_suffix(".md"), "\n".join(lines))
    write_figure(path.with_suffix(".png"), draw_robustness(summary))


def draw_robustness(summary: dict[str, Any]) -> Figure:
    """A panel per kind of corruption: accuracy and macro-F1 with their intervals, and ECE, against the level."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 7), layout="constrained")
    panels = list(figure.subplots(2, -(-(len(FAMILIES) + 1) // 2), sharey=True).flat)
    for family, axes in zip(FAMILIES, panels, strict=False):
        _draw_family(axes, family, summary)
    legend = panels[len(FAMILIES)]
    legend.axis("off")
    legend.legend(*panels[0].get_legend_handles_labels(), loc="center", title="bands: 95 % intervals")
    panels[0].set_ylim(-0.02, 1.02)
    return figure


def _draw_family(axes: Axes, family: str, summary: dict[str, Any]) -> None:
    conditions = summary["conditions"]
    points = [conditions[CLEAN.name], *(each for each in conditions.values() if each["family"] == family)]
    levels = [FAMILIES[family].clean_level, *FAMILIES[family].levels]
    for name in _SHOWN:
        (line,) = axes.plot(levels, [point[name] for point in points], marker="o", markersize=4, label=SCORES[name])
        if name in INTERVAL_SCORES:
            low, high = zip(*(point[f"{name}_interval"] for point in points), strict=True)
            axes.fill_between(levels, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    majority = summary["majority_baseline"]["accuracy"]
    axes.axhline(majority, color="grey", linestyle="--", linewidth=1, label="accuracy of the majority class")
    axes.set_xticks(levels, ["clean", *(f"{level:g}" for level in levels[1:])], fontsize="small")
    if levels[0] > levels[-1]:
        axes.invert_xaxis()
    axes.set_title(FAMILIES[family].title, fontsize="medium")
    axes.grid(alpha=0.3)
