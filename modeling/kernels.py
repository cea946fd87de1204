"""Operations that are computed by whichever way is the faster one where they run: attention and a picture's patches.

In bfloat16 on a CPU plain matrix products are faster than torch's own kernels (`python -m benchmarks kernels`).
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

# The name by which the towers of transformers find `_tower_attention`.
ATTENTION = "sdpa_or_matmul"


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    mask: Tensor | None = None,
    is_causal: bool = False,
    dropout: float = 0.0,
    scale: float | None = None,
) -> Tensor:
    """softmax(scale query key^T + mask) value (Vaswani et al. 2017, equation 1), by H heads of width E: (B, H, S, E).

    Args:
        query: (B, H, S, E).
        key, value: (B, H, T, E).
        mask: broadcastable to (B, H, S, T); bool, True where a key is seen, or added to the scores.
        is_causal: position i sees the keys up to i; only without a mask.
        dropout: share of the weights that are dropped.
        scale: default 1 / sqrt(E).
    """
    if query.device.type != "cpu" or query.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=is_causal, dropout_p=dropout, scale=scale
        )
    scores = (query * (scale or 1 / math.sqrt(query.shape[-1]))) @ key.transpose(-2, -1)  # (B, H, S, T)
    if is_causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    if mask is not None:
        lowest = torch.finfo(scores.dtype).min
        scores = scores.masked_fill(~mask, lowest) if mask.dtype == torch.bool else scores + mask
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(value.dtype)
    return F.dropout(weights, dropout) @ value


def _tower_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """`attend` in the form that transformers calls; what only some towers ask for is left to its own."""
    if key.shape != query.shape or kwargs.get("position_bias") is not None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, is_causal=is_causal, **kwargs
        )
    is_causal = attention_mask is None and bool(module.is_causal if is_causal is None else is_causal)
    attended = attend(query, key, value, mask=attention_mask, is_causal=is_causal, dropout=dropout, scale=scaling)
    return attended.transpose(1, 2).contiguous(), None


def _tower_mask(*, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor | None:
    """transformers' mask; on an accelerator without its looks at the values, for which the host would have to wait.

    Texts are padded on the right (`PairCollator`), where a causal mask hides the padding from all that is real: there
    the padding needs no mask, and the attention is left to the flash kernel, which takes none.
    """
    if attention_mask is not None and attention_mask.device.type != "cpu":
        if not kwargs.get("allow_is_causal_skip", True):
            kwargs["allow_is_bidirectional_skip"] = False
        elif kwargs.get("local_size") is None:
            return None  # compiled too, where transformers' own would make a mask
        else:
            attention_mask = None
    return sdpa_mask(attention_mask=attention_mask, **kwargs)


AttentionInterface.register(ATTENTION, _tower_attention)
AttentionMaskInterface.register(ATTENTION, _tower_mask)


class PatchConv2d(nn.Conv2d):
    """A convolution whose kernels don't overlap: in bfloat16 on a CPU the linear layer of the patches that it is.

    That takes two thirds of the convolution's time there, and more than it in float32. Only the arithmetic's order
    differs. Of pictures that are one value everywhere, and expanded from it, one patch is computed.
    """

    _is_hf_initialized: bool = False  # transformers' own mark

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, D, H / height, W / width), rows and columns that fill no patch left out."""
        (height, width), batch_size = self.kernel_size, pixels.shape[0]
        rows, columns = pixels.shape[2] // height, pixels.shape[3] // width
        if not any(pixels.stride()):
            return super().forward(pixels[:1, :, :height, :width]).expand(batch_size, -1, rows, columns)
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else pixels.dtype
        if pixels.device.type != "cpu" or dtype != torch.bfloat16:
            return super().forward(pixels)
        pixels = pixels[:, :, : rows * height, : columns * width].to(dtype)
        # (B, channels, rows, height, columns, width) -> (B, rows, columns, channels, height, width)
        patches = pixels.unflatten(2, (rows, height)).unflatten(4, (columns, width)).permute(0, 2, 4, 1, 3, 5)
        embedded = F.linear(patches.flatten(3), self.weight.flatten(1), self.bias)  # (B, rows, columns, D)
        return embedded.permute(0, 3, 1, 2)


def replace_patch_convolutions(encoder: nn.Module) -> None:
    """Put a `PatchConv2d` of the same parameters in the place of each convolution that cuts its input into patches."""
    for parent in list(encoder.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Conv2d and _cuts_patches(child):
                height, width = child.kernel_size
                channels, has_bias = (child.in_channels, child.out_channels), child.bias is not None
                patches = PatchConv2d(*channels, (height, width), (height, width), bias=has_bias, device="meta")
                patches.weight, patches.bias = child.weight, child.bias
                patches._is_hf_initialized = getattr(child, "_is_hf_initialized", False)
                setattr(parent, name, patches)


def _cuts_patches(convolution: nn.Conv2d) -> bool:
    is_unpadded = convolution.padding in ((0, 0), "valid") and convolution.dilation == (1, 1)
    return is_unpadded and convolution.groups == 1 and convolution.kernel_size == convolution.stride
