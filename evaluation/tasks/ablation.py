"""How much each modality contributes: models asked of the full, the text-only and the image-only input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from accelerate.utils import send_to_device
from numpy.typing import ArrayLike
from transformers import PreTrainedTokenizerBase

from data_utils.prepare.collator import PairCollator
from data_utils.prepare.columns import NO_LABEL_ID
from evaluation.predict.inference import Batch, Outputs
from evaluation.predict.joint_models import FeaturesOfEach, JointModels
from evaluation.scores.contributions import INPUTS
from evaluation.scores.scoring import score_predictions

ABLATION = INPUTS[:3]  # the fourth, neither modality, is for the contributions alone


class AskInputs:
    """A step: class probabilities (B, M, C) of some of the four `INPUTS`, with one pass of each tower per row.

    A batch is encoded once and fused once per input; what stands for a missing modality is the same in every row, so it
    is encoded once in all. A head of one modality never sees the other: leaving that one out changes nothing, leaving
    its own out gives the same answer for every row.

    Args:
        names: the inputs.
        blank: of `blank_batch`, what stands for a missing modality; needed for all but the full input.
    """

    def __init__(self, names: Sequence[str] = ("full",), blank: Batch | None = None) -> None:
        self._names, self._blank = names, blank
        self._missing: tuple[FeaturesOfEach, FeaturesOfEach] | None = None

    def __call__(self, models: JointModels, batch: Batch) -> Outputs:
        texts, images = models.encode("text", batch), models.encode("image", batch)
        pairs = {"full": (texts, images)}
        if self._blank is not None:
            no_texts, no_images = self._expand(models, batch)
            # Neither modality once per row, too: then a head of one gives exactly what it gives without the other.
            pairs |= {"text_only": (texts, no_images), "image_only": (no_texts, images), "none": (no_texts, no_images)}
        return {name: models.probabilities(*pairs[name]) for name in self._names}

    def _expand(self, models: JointModels, batch: Batch) -> list[FeaturesOfEach]:
        if self._missing is None:
            blank = send_to_device(self._blank, batch["row_index"].device)
            self._missing = models.encode("text", blank), models.encode("image", blank)
        size = len(batch["row_index"])
        return [[None if each is None else each.expand(size) for each in features] for features in self._missing]


def blank_batch(collator: PairCollator, tokenizer: PreTrainedTokenizerBase, ablation_input: str = "mask") -> Batch:
    """One row of what stands for a missing modality.

    Args:
        collator, tokenizer: of the models.
        ablation_input: mask (the learned missing-modality vectors) or blank (an empty text and a black picture).
    """
    row = {"input_ids": tokenizer("")["input_ids"], "image": None, "label": NO_LABEL_ID, "row_index": 0}
    is_seen = ablation_input == "blank"
    return collator([row | {"text_present": is_seen, "image_present": is_seen}])


def summarise_ablation(
    probabilities: dict[str, ArrayLike], labels: ArrayLike, label_names: Sequence[str], *, ablation_input: str
) -> dict[str, Any]:
    """The figures of ablation.json: metrics with intervals per input, the majority baseline, and remarks.

    Args:
        probabilities: {input: (N, C)}.
        labels: (N,) class ids; -100 is left out.
        label_names: the C classes' names.
        ablation_input: as of `blank_batch`.

    Returns:
        ablation_input, num_rows, majority_baseline {label, accuracy}, inputs {full, text_only, image_only: the metrics
        of `score_predictions`} and remarks, a sentence for each input that does not beat the baseline.
    """
    inputs = {name: score_predictions(values, labels, label_names) for name, values in probabilities.items()}
    baseline = inputs["full"]["majority_baseline"]
    remarks = [
        f"The {name} input ({metrics['accuracy']:.3f}) does not beat always answering "
        f"{baseline['label']} ({baseline['accuracy']:.3f})."
        for name, metrics in inputs.items()
        if metrics["accuracy"] <= baseline["accuracy"]
    ]
    return {
        "ablation_input": ablation_input,
        "num_rows": inputs["full"]["num_rows"],
        "majority_baseline": baseline,
        "inputs": inputs,
        "remarks": remarks,
    }
