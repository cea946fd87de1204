"""How a model's answers hold when texts or pictures are missing or worse than those it was trained on.

Only the input is made worse, never the model. Pictures are corrupted as the model gets them: uint8 pixels, decoded and
resized; a blur of 1 % is therefore one of the resized picture, and it isn't made milder by a later resizing. Texts are
corrupted after the cleaning and tokenised again. A missing modality is the learned missing-modality vector.

Which rows lose a modality, which words are mistyped and where there is noise depends on the seed, the row's guid and
the kind of corruption alone. The levels of a kind share one draw: the rows without a text at 10 % are among those at
25 %, and a stronger noise is the same noise, stronger. So levels differ by nothing but the level.

The kinds are those of Hendrycks and Dietterich (2019, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations") that a photo on the web has met; the levels are ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import ArrayLike, NDArray

from data_utils.prepare.tokens import tokenize_batch
from evaluation.predict.inference import Batch, Outputs
from evaluation.predict.joint_models import FeaturesOfEach, JointModels
from evaluation.predict.loaded_run import LoadedRun
from evaluation.robustness.corruptions import Pixels, add_noise, blur_picture, compress_picture, make_generator, mistype
from evaluation.scores.scoring import score_predictions


class Family(NamedTuple):
    """A kind of corruption: what happens and its unit, and its levels from mild to strong."""

    title: str
    levels: tuple[float, ...]

    @property
    def clean_level(self) -> float:
        """The level at which nothing happens; a quality, which falls where the others rise, has it at 100."""
        return 0 if self.levels[0] < self.levels[-1] else 100


class Condition(NamedTuple):
    """One kind of corruption, a key of `FAMILIES` or clean, at one level in the family's unit."""

    family: str
    level: float = 0

    @property
    def name(self) -> str:
        """As in the tables: missing_text_25."""
        return self.family if self == CLEAN else f"{self.family}_{self.level:g}"


CLEAN = Condition("clean")
_SHARES = (10, 25, 50, 75, 100)
FAMILIES = {
    "missing_text": Family("texts missing, % of rows", _SHARES),
    "missing_image": Family("pictures missing, % of rows", _SHARES),
    "mixed": Family("text or picture missing, half each, % of rows", _SHARES),
    "blur": Family("blur, radius in % of the picture's side", (0.5, 1, 2, 4)),
    "noise": Family("noise, standard deviation in grey levels", (8, 16, 32, 64)),
    "jpeg": Family("JPEG quality", (75, 50, 25, 10)),
    "typos": Family("words mistyped, %", (10, 25, 50)),
}
MISSING, PICTURES = ("missing_text", "missing_image", "mixed"), ("blur", "noise", "jpeg")


def conditions_of(*families: str) -> list[Condition]:
    """The conditions of some families, from mild to strong."""
    return [Condition(family, level) for family in families for level in FAMILIES[family].levels]


CONDITIONS = (CLEAN, *conditions_of(*FAMILIES))


def lose_modalities(condition: Condition, draws: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which rows lose their text and which their picture; rows that lose something also lose it at a larger share.

    A share is the chance of each row, so that no row's fate depends on the others: of N rows it is met up to
    sqrt(share (1 - share) / N), and exactly at 100 %. In a mixture no row loses both.

    Args:
        condition: of `MISSING`.
        draws: (N,) numbers in [0, 1), one of each row.

    Returns:
        (N,) and (N,), True where it is lost.
    """
    draws, share = np.asarray(draws), condition.level / 100
    if condition.family == "missing_text":
        return draws < share, np.zeros(len(draws), dtype=bool)
    if condition.family == "missing_image":
        return np.zeros(len(draws), dtype=bool), draws < share
    return draws < share / 2, draws >= 1 - share / 2


class AskCorrupted:
    """A step: class probabilities {condition's name: (B, M, C)}, clean ones being those of the plain evaluation.

    A batch is encoded clean once; missing modalities cost a fusion each, corrupted pictures a pass of the picture tower
    each, typing errors a pass of the text tower each. A head of one modality never sees the other's conditions: its
    answers there are the clean ones, and nothing is computed for them. What a row hasn't got stays missing.

    Args:
        run: gives the tokenizer and the sizes.
        rows: with text, guid and row_index.
        seed: of all corruptions.
    """

    def __init__(self, run: LoadedRun, rows: Dataset, *, seed: int = 0) -> None:
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
        input_ids, mask = (each.to(batch["input_ids"].device) for each in self._run.collator.pad(tokens))
        return models.encode("text", batch | {"input_ids": input_ids, "attention_mask": mask})

    def _generators(self, batch: Batch, name: str) -> Iterator[np.random.Generator]:
        return (make_generator(self._seed, self._guids[row], name) for row in batch["row_index"].tolist())


def summarise_robustness(
    probabilities: Mapping[str, ArrayLike], labels: ArrayLike, label_names: Sequence[str]
) -> dict[str, Any]:
    """The figures of robustness.json: metrics with intervals per condition, the majority baseline, and remarks.

    Args:
        probabilities: {condition's name: (N, C)}.
        labels: (N,) class ids; -100 is left out.
        label_names: the C classes' names.

    Returns:
        num_rows, majority_baseline {label, accuracy}, conditions {name: family, level and the metrics of
        `score_predictions`} and remarks, sentences on what can be overlooked in the table.
    """
    scores = {each: score_predictions(probabilities[each.name], labels, label_names) for each in CONDITIONS}
    baseline = scores[CLEAN]["majority_baseline"]
    return {
        "num_rows": scores[CLEAN]["num_rows"],
        "majority_baseline": baseline,
        "conditions": {condition.name: condition._asdict() | metrics for condition, metrics in scores.items()},
        "remarks": [*_note_beaten(scores, baseline), *_note_unchanged(probabilities)],
    }


def _note_beaten(scores: Mapping[Condition, dict[str, Any]], baseline: dict[str, Any]) -> list[str]:
    levels: dict[str, list[str]] = {}
    for condition, metrics in scores.items():
        if metrics["accuracy"] <= baseline["accuracy"]:
            levels.setdefault(condition.family, []).append(f"{condition.level:g}")
    beaten = [family if family == CLEAN.family else f"{family} {', '.join(each)}" for family, each in levels.items()]
    answer = f"always answering {baseline['label']} ({baseline['accuracy']:.3f})"
    return [f"Not more accurate than {answer}: {'; '.join(beaten)}."] if beaten else []


def _note_unchanged(probabilities: Mapping[str, ArrayLike]) -> list[str]:
    clean = probabilities[CLEAN.name]
    unchanged = [
        family
        for family in FAMILIES
        if all(np.array_equal(probabilities[condition.name], clean) for condition in conditions_of(family))
    ]
    return [f"No answer changes under {', '.join(unchanged)}: the model reads nothing there."] if unchanged else []


def _corrupt_picture(pixels: Pixels, condition: Condition, generator: np.random.Generator) -> Pixels:
    if condition.family == "blur":
        return blur_picture(pixels, condition.level)
    if condition.family == "noise":
        return add_noise(pixels, condition.level, generator)
    return compress_picture(pixels, condition.level)
