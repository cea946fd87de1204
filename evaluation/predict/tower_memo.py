"""What frozen towers made of a batch, kept for the next model that holds the same towers and is asked the same.

The models of a cross-validated run differ in their heads alone where their towers were frozen: of the seeds of a fold,
which judge the same rows, the first one's towers run and the others' answer with what those gave.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from modeling.classifier import SentimentClassifier
from modeling.towers import Tower

MAX_BYTES = 2**30
Outputs = tuple[Tensor, Tensor | None]
Compute = Callable[..., tuple[Tensor, Tensor]]


class TowerMemo:
    """Outputs of frozen towers by what the towers were given; the answers are, bit by bit, those without it.

    An output is found again only for a whole batch of the same bytes, shapes and strides under the same mixed
    precision. The towers are those of the first model that is served: another's that differs from them in a weight, or
    that is trained, wholly or in its last blocks, computes as ever. The hash (sha256) is taken of the token ids and of
    the uint8 pixels, before these are normalised: 0.15 ms a picture of 224 x 224 on a core that has the instructions.

    Outputs lie in the CPU's memory: patches of many rows would crowd a GPU on which a small batch was asked for, and
    copying them there costs less than a tower. Tokens and patches are kept only for a head that reads them. What finds
    no room isn't kept; nothing is dropped for it, since each model comes by the same batches in the same order, so that
    the oldest is what is wanted next. Each rank has a memo of its own, and meets the same batches with every model.

    Args:
        max_bytes: that all outputs may take.

    Attributes:
        num_bytes: that they take.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.num_bytes = 0
        self._max_bytes = max_bytes
        self._towers: dict[str, tuple[Any, dict[str, Tensor]]] = {}
        self._outputs: dict[str, tuple[_Kept, ...]] = {}

    @contextmanager
    def serve(self, model: SentimentClassifier) -> Iterator[None]:
        """Within, those of the model's towers that the memo knows ask it before they compute.

        Args:
            model: as it was loaded, on the CPU.
        """
        towers = {kind: tower for kind, tower in model.towers().items() if self._knows(kind, tower, model)}
        reads_tokens = {"text": model.text_token_align is not None, "image": model.image_token_align is not None}
        for kind, tower in towers.items():
            compute = tower.forward
            if kind == "image":  # a quarter of the bytes is hashed, and pixels that were met before aren't normalised
                compute = partial(_compute_from_pixels, compute, model.normalize)
                model.normalize = _leave
            tower.forward = partial(self._answer, compute, kind, reads_tokens[kind])
        try:
            yield
        finally:
            # Not left to the model's end: through these it refers to itself, and its weights would outlive it.
            for kind, tower in towers.items():
                del tower.forward
                if kind == "image":
                    del model.normalize

    def _knows(self, kind: str, tower: Tower, model: SentimentClassifier) -> bool:
        if not tower.is_frozen:
            return False
        config = model.config
        settings = [config.fusion, config.text_tower, config.vision_tower, config.image_mean, config.image_std]
        weights = tower.state_dict()
        known, values = self._towers.setdefault(kind, (settings, weights))
        return known == settings and all(torch.equal(value, values[name]) for name, value in weights.items())

    def _answer(self, compute: Compute, kind: str, reads_tokens: bool, /, **inputs: Tensor | None) -> Outputs:
        given = {name: value for name, value in inputs.items() if value is not None}
        device = next(iter(given.values())).device
        key = _hash_inputs(kind, given, device)
        if key not in self._outputs:
            outputs = compute(**given)
            self._keep(key, outputs if reads_tokens else outputs[:1])
            return outputs
        vector, *tokens = (each.restore(device) for each in self._outputs[key])
        return vector, tokens[0] if tokens else None

    def _keep(self, key: str, outputs: tuple[Tensor, ...]) -> None:
        num_bytes = self.num_bytes + sum(output.nbytes for output in outputs)
        if num_bytes <= self._max_bytes:
            self.num_bytes = num_bytes
            self._outputs[key] = tuple(_Kept(output.to("cpu", copy=True), output.stride()) for output in outputs)


@dataclass(frozen=True)
class _Kept:
    """An output, and the strides that it had: a product over other strides may round otherwise."""

    values: Tensor
    stride: tuple[int, ...]

    def restore(self, device: torch.device) -> Tensor:
        """A copy that is laid out as the output was."""
        empty = torch.empty_strided(self.values.shape, self.stride, dtype=self.values.dtype, device=device)
        return empty.copy_(self.values)


def _hash_inputs(kind: str, inputs: dict[str, Tensor], device: torch.device) -> str:
    precision = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None
    digest = hashlib.sha256(f"{kind} {precision}".encode())
    for name, value in inputs.items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)} {value.stride()}".encode())
        digest.update(value.cpu().contiguous().view(-1).view(torch.uint8).numpy())  # numpy has no bfloat16
    return digest.hexdigest()


def _compute_from_pixels(
    compute: Compute, normalize: Callable[[Tensor], Tensor], *, pixel_values: Tensor
) -> tuple[Tensor, Tensor]:
    return compute(pixel_values=normalize(pixel_values))


def _leave(pixel_values: Tensor) -> Tensor:
    """In place of the model's normalising, which `_compute_from_pixels` does."""
    return pixel_values
