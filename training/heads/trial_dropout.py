"""Dropout from random numbers of a trial's own, so that trials can train side by side in one process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

# A mask is drawn as 16 bits an entry: the rate is exact to 1 / 65536.
_LOWEST, _SPAN = -(1 << 15), 1 << 16


class TrialDropout(TorchFunctionMode):
    """Within, this thread's dropout is drawn from a stream that depends on the seed alone.

    torch draws from one generator for the process, in whatever order threads come to it, and takes no other. The stream
    is numpy's SFC64, which takes half the time of torch's Bernoulli numbers besides.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._stream = np.random.Generator(np.random.SFC64(seed))

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.dropout:
            return self._drop(*args, **kwargs)
        if func is F.scaled_dot_product_attention and kwargs.get("dropout_p"):
            return self._attend(*args, **kwargs)
        return func(*args, **kwargs)

    def _drop(self, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or p == 0:
            return x
        bits = self._stream.integers(_LOWEST, _LOWEST + _SPAN, size=x.shape, dtype=np.int16)
        kept = torch.from_numpy(bits) >= _LOWEST + round(p * _SPAN)
        return x * kept.to(x.dtype).mul_(1 / (1 - p))

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, *, dropout_p: float, **options: Any) -> Tensor:
        # Of an identity matrix the kernel gives its weights, (B, H, S, T), which it drops without being asked how.
        identity = torch.eye(key.shape[-2], dtype=key.dtype).expand(*key.shape[:-2], -1, -1)
        return self._drop(F.scaled_dot_product_attention(query, key, identity, **options), dropout_p) @ value
