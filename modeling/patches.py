"""A picture's patches as rows of a matrix product."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PatchConv2d(nn.Conv2d):
    """A convolution whose kernels don't overlap: in bfloat16 on a CPU the linear layer of the patches that it is.

    That takes two thirds of the convolution's time there, and more than it in float32. The weights and their names are
    the convolution's; only the arithmetic's order differs.
    """

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, D, H / height, W / width), rows and columns that fill no patch left out."""
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else pixels.dtype
        if pixels.device.type != "cpu" or dtype != torch.bfloat16:
            return super().forward(pixels)
        height, width = self.kernel_size
        rows, columns = pixels.shape[2] // height, pixels.shape[3] // width
        pixels = pixels[:, :, : rows * height, : columns * width].to(dtype)
        # (B, channels, rows, height, columns, width) -> (B, rows, columns, channels, height, width)
        patches = pixels.unflatten(2, (rows, height)).unflatten(4, (columns, width)).permute(0, 2, 4, 1, 3, 5)
        embedded = F.linear(patches.flatten(3), self.weight.flatten(1), self.bias)  # (B, rows, columns, D)
        return embedded.permute(0, 3, 1, 2)


def embed_patches_linearly(encoder: nn.Module) -> None:
    """Let every convolution of `encoder` that cuts its input into patches be computed as a `PatchConv2d`."""
    for module in encoder.modules():
        if type(module) is nn.Conv2d and _cuts_patches(module):
            module.__class__ = PatchConv2d


def _cuts_patches(convolution: nn.Conv2d) -> bool:
    return (
        convolution.kernel_size == convolution.stride
        and convolution.padding in ((0, 0), "valid")
        and convolution.dilation == (1, 1)
        and convolution.groups == 1
    )
