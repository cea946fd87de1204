"""How much each modality contributes: models asked of the full, the text-only and the image-only input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from accelerate.utils import send_to_device
from numpy.typing import ArrayLike
from transformers import PreTrainedTokenizerBase

from data_utils.console.tables import format_table
from data_utils.prepare.collator import PairCollator
from data_utils.prepare.columns import NO_LABEL_ID
from evaluation.predict.inference import Batch, Outputs
from evaluation.scores.contributions import INPUTS
from evaluation.scores.metrics import Floats
from evaluation.scores.scoring import score_predictions, tabulate_inputs, task_of_figures
from modeling.ensemble import FeaturesOfEach, JointModels

ABLATION = INPUTS[:3]  # the fourth, neither modality, is for the contributions alone


class AskInputs:
    """A step: class probabilities (B, M, C) of some of the four `INPUTS`, with one pass of each tower per row.

    A batch is encoded once and fused once per input; what stands for a missing modality is the same in every row, so it
    is encoded once in all: `blank`, of `blank_batch`, which all but the full input need.
    """

    def __init__(self, names: Sequence[str] = ("full",), blank: Batch | None = None) -> None:
        self._names, self._blank = names, blank
        self._missing: tuple[FeaturesOfEach, FeaturesOfEach] | None = None

    def __call__(self, models: JointModels, batch: Batch) -> Outputs:
        return self.fuse(models, batch, models.encode("text", batch), models.encode("image", batch))

    def fuse(self, models: JointModels, batch: Batch, texts: FeaturesOfEach, images: FeaturesOfEach) -> Outputs:
        """The probabilities, by the features of a batch."""
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
    """One row of what stands for a missing modality: the learned vectors (mask), or an empty text and black picture."""
    row = {"input_ids": tokenizer("")["input_ids"], "image": None, "label": NO_LABEL_ID, "row_index": 0}
    is_seen = ablation_input == "blank"
    return collator([row | {"text_present": is_seen, "image_present": is_seen}])


def summarise_ablation(
    probabilities: Mapping[str, ArrayLike],
    labels: ArrayLike,
    label_names: Sequence[str],
    *,
    ablation_input: str,
    thresholds: Floats | None = None,
) -> dict[str, Any]:
    """The figures of ablation.json, from (N, C) by the input's name.

    Returns:
        ablation_input, num_rows, majority_baseline {label, accuracy}, inputs {full, text_only, image_only: the metrics
        of `score_predictions`} and remarks, a sentence for each input that does not beat the baseline.
    """
    inputs = {
        name: score_predictions(values, labels, label_names, thresholds) for name, values in probabilities.items()
    }
    baseline, task = inputs["full"]["majority_baseline"], task_of_figures(inputs["full"])
    score = next(iter(task.scores))
    remarks = [
        f"The {name} input ({metrics[score]:.3f}) does not beat always answering "
        f"{baseline['label']} ({baseline[score]:.3f})."
        for name, metrics in inputs.items()
        if task.sign * metrics[score] <= task.sign * baseline[score]
    ]
    return {
        "ablation_input": ablation_input,
        "num_rows": inputs["full"]["num_rows"],
        "majority_baseline": baseline,
        "inputs": inputs,
        "remarks": remarks,
    }


def format_ablation(summary: dict[str, Any], *, title: str) -> str:
    """The table of `summarise_ablation` and its remarks as plain text."""
    heading = f"ablation on {title}: {summary['num_rows']} rows, missing modality: {summary['ablation_input']}"
    scores = [name for name in task_of_figures(summary["inputs"]["full"]).scores if name != "ece"]
    table = format_table(tabulate_inputs("input", summary["inputs"], scores))
    return "\n".join([f"{heading}, 95 % intervals in brackets", "", table, "", *summary["remarks"]]).rstrip()
