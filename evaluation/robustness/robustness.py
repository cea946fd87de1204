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
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from datasets import Dataset
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from data_utils.prepare.collator import NUMBERS
from data_utils.prepare.tokens import tokenize_batch
from evaluation.predict.inference import Batch, Outputs, run_inference
from evaluation.predict.loaded_run import LoadedRun
from evaluation.robustness.corruptions import Pixels, add_noise, blur_picture, compress_picture, make_generator, mistype
from evaluation.scores.scoring import score_predictions
from modeling.batch import Features
from modeling.classifier import SentimentClassifier


@dataclass(frozen=True)
class Condition:
    """One kind of corruption at one level.

    Attributes:
        family: a key of `FAMILIES`, or clean.
        level: in the family's unit.
    """

    family: str
    level: float = 0

    @property
    def name(self) -> str:
        """As in the tables: missing_text_25."""
        return self.family if self == CLEAN else f"{self.family}_{self.level:g}"


@dataclass(frozen=True)
class Family:
    """A kind of corruption.

    Attributes:
        title: what happens, and its unit.
        levels: from mild to strong.
    """

    title: str
    levels: tuple[float, ...]

    @property
    def clean_level(self) -> float:
        """The level at which nothing happens; a quality, which falls where the others rise, has it at 100."""
        return 0 if self.levels[0] < self.levels[-1] else 100


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
    nothing = np.zeros(len(draws), dtype=bool)
    if condition.family == "missing_text":
        return draws < share, nothing
    if condition.family == "missing_image":
        return nothing, draws < share
    return draws < share / 2, draws >= 1 - share / 2


def run_robustness(
    model: SentimentClassifier,
    run: LoadedRun,
    dataset: Dataset,
    *,
    batch_size: int,
    accelerator: Accelerator,
    seed: int = 0,
) -> dict[Condition, Tensor]:
    """Class probabilities of every row under every condition, in one pass over the rows.

    A batch is encoded clean once; missing modalities cost a fusion each, corrupted pictures a pass of the picture tower
    each, typing errors a pass of the text tower each. Of all that only the probabilities are kept. A head of one
    modality never sees the other's conditions: its answers there are the clean ones, and nothing is computed for them.

    Args:
        model: of the run.
        run: gives the tokenizer and the sizes.
        dataset: N rows of `run.load_split_rows`: with text, guid and row_index. What a row hasn't got stays missing.
        batch_size: rows per rank and forward.
        accelerator: device, ranks and mixed precision.
        seed: of all corruptions.

    Returns:
        {condition: (N, C) on the CPU} in the order of `CONDITIONS`, rows in the data set's, the same on every rank.
        Clean is what `run_inference` gives with `classify`.
    """
    outputs = run_inference(
        model,
        dataset,
        run.collator,
        batch_size=batch_size,
        accelerator=accelerator,
        step=_Corruptor(run, guids=dataset["guid"][:], texts=dataset["text"][:], seed=seed),
        description="robustness",
    )
    return {condition: outputs[condition.name] for condition in CONDITIONS}


def summarise_robustness(
    probabilities: Mapping[Condition, ArrayLike], labels: ArrayLike, label_names: Sequence[str]
) -> dict[str, Any]:
    """The figures of robustness.json: metrics with intervals per condition, the majority baseline, and remarks.

    Args:
        probabilities: (N, C) by condition, of `run_robustness`; those of several parts one after the other.
        labels: (N,) class ids; -100 is left out.
        label_names: the C classes' names.

    Returns:
        num_rows, majority_baseline {label, accuracy}, conditions {name: family, level and the metrics of
        `score_predictions`} and remarks, sentences on what can be overlooked in the table.
    """
    scores = {condition: score_predictions(values, labels, label_names) for condition, values in probabilities.items()}
    baseline = scores[CLEAN]["majority_baseline"]
    return {
        "num_rows": scores[CLEAN]["num_rows"],
        "majority_baseline": baseline,
        "conditions": {
            condition.name: {"family": condition.family, "level": condition.level} | metrics
            for condition, metrics in scores.items()
        },
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


def _note_unchanged(probabilities: Mapping[Condition, ArrayLike]) -> list[str]:
    clean = np.asarray(probabilities[CLEAN])
    changes: dict[str, bool] = {}
    for condition, values in probabilities.items():
        if condition != CLEAN:
            same = np.array_equal(np.asarray(values), clean)
            changes[condition.family] = changes.get(condition.family, False) or not same
    unchanged = [family for family, changed in changes.items() if not changed]
    return [f"No answer changes under {', '.join(unchanged)}: the model reads nothing there."] if unchanged else []


class _Corruptor:
    """The step of `run_robustness`: batch -> {condition's name: (B, C)}."""

    def __init__(self, run: LoadedRun, *, guids: Sequence[str], texts: Sequence[str], seed: int) -> None:
        self._run, self._guids, self._texts, self._seed = run, guids, texts, seed

    def __call__(self, model: SentimentClassifier, batch: Batch) -> Outputs:
        text, image = model.encode("text", batch), model.encode("image", batch)
        answers = {CLEAN.name: model.fuse(text, image)}
        for condition in conditions_of(*MISSING):
            draws = [generator.random() for generator in self._generators(batch, "missing")]
            no_text, no_image = lose_modalities(condition, draws)
            features = _drop(text, no_text, model.missing_text), _drop(image, no_image, model.missing_image)
            answers[condition.name] = model.fuse(*features)
        for condition in conditions_of(*PICTURES):
            worse = None if image is None else self._encode_pictures(model, batch, condition)
            answers[condition.name] = model.fuse(text, worse)
        for condition in conditions_of("typos"):
            worse = None if text is None else self._encode_typos(model, batch, condition)
            answers[condition.name] = model.fuse(worse, image)
        return {name: model.probabilities(logits) for name, logits in answers.items()}

    def _encode_pictures(self, model: SentimentClassifier, batch: Batch, condition: Condition) -> Features | None:
        pixels = batch["pixel_values"].cpu().numpy()
        worse = [
            _corrupt_picture(picture, condition, generator)
            for picture, generator in zip(pixels, self._generators(batch, condition.family), strict=True)
        ]
        pixel_values = torch.from_numpy(np.stack(worse)).to(batch["pixel_values"].device)
        return model.encode("image", batch | {"pixel_values": pixel_values})

    def _encode_typos(self, model: SentimentClassifier, batch: Batch, condition: Condition) -> Features | None:
        texts = [
            mistype(self._texts[row], condition.level, generator)
            for row, generator in zip(batch["row_index"].tolist(), self._generators(batch, "typos"), strict=True)
        ]
        tokens = tokenize_batch(texts, self._run.tokenizer, self._run.config.max_length)["input_ids"]
        columns = {name: batch[key].cpu() for name, (key, _) in NUMBERS.items()}
        worse = self._run.collator(columns | {"input_ids": tokens})
        changed = {name: worse[name].to(model.device) for name in ("input_ids", "attention_mask")}
        return model.encode("text", batch | changed)

    def _generators(self, batch: Batch, name: str) -> Iterator[np.random.Generator]:
        return (make_generator(self._seed, self._guids[row], name) for row in batch["row_index"].tolist())


def _drop(features: Features | None, lost: NDArray[np.bool_], missing: Tensor | None) -> Features | None:
    """The learned vector in place of the features of the rows that lose them."""
    if features is None:
        return None
    return features.masked(torch.from_numpy(~lost).to(features.vector.device), missing)


def _corrupt_picture(pixels: Pixels, condition: Condition, generator: np.random.Generator) -> Pixels:
    if condition.family == "blur":
        return blur_picture(pixels, condition.level)
    if condition.family == "noise":
        return add_noise(pixels, condition.level, generator)
    return compress_picture(pixels, condition.level)
