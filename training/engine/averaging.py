"""An exponential moving average of what is trained, by torch's own (`torch.optim.swa_utils`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

AVERAGE = "average.safetensors"  # in a checkpoint, beside the weights that are trained on
UPDATES = "n_averaged"  # the name that torch gives to the number of updates in it


class WeightAverage:
    """The average of a model's trained parameters over its updates: decay times the average plus the rest of 1 of them.

    It begins with the weights after the first update, in float32 whatever the model computes in. What isn't trained
    takes no memory here. Every rank has the whole of it, so the model must be whole on each.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Of the parameters of `model`, which stay where they are, on their device."""
        self._parameters = {name: each for name, each in model.named_parameters() if each.requires_grad}
        self._averaged = AveragedModel(self._in_float32(), multi_avg_fn=get_ema_multi_avg_fn(decay))

    def update(self) -> None:
        """Take in the weights after an update."""
        self._averaged.update_parameters(self._in_float32())

    def weights(self) -> dict[str, Tensor]:
        """The average by the parameters' names."""
        return dict(zip(self._parameters, self._averaged.module.parameters(), strict=True))

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Within, the model has the averaged weights; afterwards bit for bit its own."""
        own = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        self.put_in(self.weights())
        try:
            yield
        finally:
            self.put_in(own)

    @torch.no_grad()
    def put_in(self, weights: dict[str, Tensor]) -> None:
        """Give the model these weights, by the parameters' names."""
        for name, parameter in self._parameters.items():
            parameter.data.copy_(weights[name])

    def save(self, checkpoint: Path) -> None:
        """Write it into the folder of a checkpoint."""
        values = {name: value.detach().contiguous() for name, value in self.weights().items()}
        save_file(values | {UPDATES: self._averaged.n_averaged}, checkpoint / AVERAGE)

    @torch.no_grad()
    def load(self, checkpoint: Path) -> None:
        """Go on from what `save` wrote."""
        values = load_file(checkpoint / AVERAGE)
        self._averaged.n_averaged.copy_(values.pop(UPDATES))
        for name, value in self.weights().items():
            value.copy_(values[name])

    def _in_float32(self) -> nn.ParameterList:
        values = (nn.Parameter(each.detach().float(), requires_grad=False) for each in self._parameters.values())
        return nn.ParameterList(values)
