"""The parameters of a classifier: how many there are, and which of them learn nothing."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from modeling.classifier import SentimentClassifier


def parameter_table(model: SentimentClassifier) -> Mapping[str, int]:
    """Number of parameters by part: text, image (towers), fusion, head (classifier layers), total and trainable."""
    table = dict.fromkeys(("text", "image", "fusion", "head", "total", "trainable"), 0)
    for name, parameter in model.named_parameters():
        # Under ZeRO-3 a parameter is an empty shell that knows its whole size.
        size = getattr(parameter, "ds_numel", parameter.numel())
        table[_part_of(name)] += size
        table["total"] += size
        table["trainable"] += size * parameter.requires_grad
    return table


def find_idle(model: SentimentClassifier) -> list[str]:
    """Names of the parameters that are to be trained, but on which no answer depends.

    Some encoders bring such: T5 a second table of words, Longformer the weights of a global attention.
    """
    size = model.config.picture["image_size"]
    present, tokens = torch.ones(1, dtype=torch.bool), torch.ones(1, 4, dtype=torch.long)
    was_training = model.training
    logits = model.eval()(
        input_ids=tokens,
        attention_mask=tokens,
        pixel_values=torch.zeros(1, 3, size, size, dtype=torch.uint8),
        text_present=present,
        image_present=present,
    ).logits
    model.train(was_training)
    waiting, seen, read = [logits.grad_fn], set(), set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            read.add(getattr(node, "variable", None))  # of a leaf of the graph
            waiting.extend(following for following, _ in node.next_functions)
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad and parameter not in read]


def _part_of(name: str) -> str:
    for prefix, part in (("text_tower.", "text"), ("image_tower.", "image"), ("fusion.classifier", "head")):
        if name.startswith(prefix):
            return part
    return "fusion"
