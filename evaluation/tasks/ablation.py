"""How much each modality contributes: one model scored on the full, the text-only and the image-only input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from accelerate import Accelerator
from accelerate.utils import send_to_device
from datasets import Dataset
from numpy.typing import ArrayLike
from transformers import PreTrainedTokenizerBase

from data_utils.prepare.collator import PairCollator
from evaluation.arguments import ABLATION_INPUTS
from evaluation.predict.inference import Batch, Outputs, inference_context, run_inference
from evaluation.scores.scoring import score_predictions
from modeling.batch import Features
from modeling.classifier import SentimentClassifier
from modeling.errors import check_choice


def run_ablation(
    model: SentimentClassifier,
    dataset: Dataset,
    collator: PairCollator,
    tokenizer: PreTrainedTokenizerBase,
    *,
    batch_size: int,
    accelerator: Accelerator,
    ablation_input: str = "mask",
    with_none: bool = False,
) -> Outputs:
    """Class probabilities of the three inputs, or of all four, with one pass of each tower per row.

    A batch is encoded once per tower and fused once per input; what stands for a missing modality is the same in every
    row, so it is encoded once in all. A head of one modality never sees the other: leaving that one out changes
    nothing, leaving its own out gives the same answer for every row.

    Args:
        model: any fusion head.
        dataset: N tokenised rows with row_index.
        collator: of the model's inputs.
        tokenizer: the model's.
        batch_size: rows per rank and forward.
        accelerator: device, ranks and mixed precision.
        ablation_input: what a missing modality is: mask (the learned missing-modality vector) or blank (an empty text,
            a black picture).
        with_none: also the input of neither modality, for `evaluation.scores.contributions`; no tower runs for it.

    Returns:
        {"full": (N, C), "text_only": (N, C), "image_only": (N, C)}, and "none": (N, C) if asked for; the same on every
        rank.
    """
    check_choice("--ablation_input", ablation_input, ABLATION_INPUTS)
    blank = send_to_device(_blank_batch(collator, tokenizer, present=ablation_input == "blank"), accelerator.device)
    with inference_context(model, accelerator):
        step = _ablation_step(model.encode("text", blank), model.encode("image", blank), with_none=with_none)
    return run_inference(
        model, dataset, collator, batch_size=batch_size, accelerator=accelerator, step=step, description="ablation"
    )


def summarise_ablation(
    probabilities: dict[str, ArrayLike], labels: ArrayLike, label_names: Sequence[str], *, ablation_input: str
) -> dict[str, Any]:
    """The figures of ablation.json: metrics with intervals per input, the majority baseline, and remarks.

    Args:
        probabilities: of `run_ablation`.
        labels: (N,) class ids; -100 is left out.
        label_names: the C classes' names.
        ablation_input: as given to `run_ablation`.

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


def _ablation_step(
    blank_text: Features | None, blank_image: Features | None, *, with_none: bool
) -> Callable[[SentimentClassifier, Batch], Outputs]:
    def step(model: SentimentClassifier, batch: Batch) -> Outputs:
        text, image = model.encode("text", batch), model.encode("image", batch)
        batch_size = len(batch["row_index"])
        no_text = None if blank_text is None else blank_text.expand(batch_size)
        no_image = None if blank_image is None else blank_image.expand(batch_size)
        pairs = {"full": (text, image), "text_only": (text, no_image), "image_only": (no_text, image)}
        if with_none:
            # Once per row, though all are the same: then a head of one modality gives exactly what it gives without it.
            pairs["none"] = (no_text, no_image)
        return {name: model.probabilities(model.fuse(*pair)) for name, pair in pairs.items()}

    return step


def _blank_batch(collator: PairCollator, tokenizer: PreTrainedTokenizerBase, *, present: bool) -> Batch:
    """A batch of one row with an empty text and a black picture, which the model sees if `present`."""
    row = {
        "input_ids": tokenizer("")["input_ids"],
        "image": None,
        "text_present": present,
        "image_present": present,
        "label": -100,
        "row_index": 0,
    }
    return collator([row])
