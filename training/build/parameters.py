"""The parameters of a classifier: how many there are, which learn nothing, and whether a file has them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from modeling.classifier import SentimentClassifier
from modeling.errors import InputError
from modeling.loading import describe_differences

_PARTS = {"text_tower.": "text", "image_tower.": "image", "fusion.classifier": "head"}


def parameter_table(model: SentimentClassifier) -> dict[str, int]:
    """Number of parameters by part: text, image (towers), fusion, head (classifier layers), total and trainable."""
    table = dict.fromkeys(("text", "image", "fusion", "head", "total", "trainable"), 0)
    for name, parameter in model.named_parameters():
        # Under ZeRO-3 a parameter is an empty shell that knows its whole size.
        size = getattr(parameter, "ds_numel", parameter.numel())
        table[next((part for prefix, part in _PARTS.items() if name.startswith(prefix)), "fusion")] += size
        table["total"] += size
        table["trainable"] += size * parameter.requires_grad
    return table


def example_inputs(model: SentimentClassifier) -> dict[str, Tensor]:
    """A text of four tokens (1, 4) and a picture (1, 3, H, W) of zeros, normalised."""
    assert model.config.picture is not None
    size = model.config.picture["image_size"]
    tokens = torch.ones(1, 4, dtype=torch.long)
    return {"input_ids": tokens, "attention_mask": tokens, "pixel_values": torch.zeros(1, 3, size, size)}


def find_idle(model: SentimentClassifier) -> list[str]:
    """Names of the parameters that are to be trained, but on which no answer depends.

    Some encoders bring such: T5 a second table of words, Longformer the weights of a global attention.
    """
    inputs, present = example_inputs(model), torch.ones(1, dtype=torch.bool)
    inputs["pixel_values"] = inputs["pixel_values"].to(torch.uint8)
    was_training = model.training
    logits = model.eval()(**inputs, text_present=present, image_present=present).logits
    model.train(was_training)
    waiting, seen, read = [logits.grad_fn], set(), set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            read.add(getattr(node, "variable", None))  # of a leaf of the graph
            waiting.extend(following for following, _ in node.next_functions)
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad and parameter not in read]


def compare_sizes(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """One text about the keys and sizes in which what a file holds differs from what a model needs; empty if none."""
    sizes = {key: (tuple(found[key].shape), tuple(wanted[key].shape)) for key in wanted.keys() & found.keys()}
    mismatched = [(key, *pair) for key, pair in sizes.items() if pair[0] != pair[1]]
    return describe_differences(wanted.keys() - found.keys(), found.keys() - wanted.keys(), mismatched)


def check_weights_fit(model: nn.Module, file: Path) -> None:
    """`InputError` for a safetensors file whose header is damaged, or has other keys and sizes than the model."""
    try:
        with safe_open(file, framework="pt") as weights:
            shapes = {key: weights.get_slice(key).get_shape() for key in weights.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(f"{file} is damaged ({error}); use an earlier checkpoint.") from error
    found = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    if differences := compare_sizes(found, model.state_dict()):
        raise InputError(f"{file} doesn't fit this model. {differences}")


def check_frozen_weights(model: nn.Module, file: Path) -> None:
    """`InputError` where what is frozen in the model has other values in a safetensors file that fits it.

    A checkpoint of half precision may have rounded them.
    """
    with safe_open(file, framework="pt") as weights:
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                continue
            if not torch.allclose(weights.get_tensor(name).float(), parameter.detach().cpu(), rtol=1e-2, atol=1e-6):
                raise InputError(
                    f"The frozen {name} is not that of {file}: the tower comes from other weights now. Give the names "
                    "(or folders, or --seed) of the run that wrote it, or start a new run."
                )
