"""Modality dropout: rows of a batch lose their text or their picture, the same rows wherever they are computed."""

from __future__ import annotations

from torch import Tensor

# The constants of SplitMix64 (Steele, Lea and Flood 2014, figure 14) as signed 64-bit integers.
_GOLDEN_GAMMA = -0x61C8864680B583EB
_MIX_1 = -0x40A7B892E31B1A47
_MIX_2 = -0x6B2FB644ECCEEE15
_SEED_STRIDE, _EPOCH_STRIDE = 1_000_000_007, 998_244_353  # primes: no (seed, epoch, row) falls on another's number


def uniform_from_rows(row_index: Tensor, *, seed: int, epoch: int) -> Tensor:
    """A number in [0, 1) per row, (B,) float32, that depends on seed, epoch and row alone.

    Randomness drawn from a generator would differ between ranks, accumulation steps and resumed runs.
    """
    x = (row_index.long() + (seed * _SEED_STRIDE + epoch * _EPOCH_STRIDE) % (1 << 62)) * _GOLDEN_GAMMA
    x = (x ^ _shift_right(x, 30)) * _MIX_1
    x = (x ^ _shift_right(x, 27)) * _MIX_2
    x = x ^ _shift_right(x, 31)
    return _shift_right(x, 40).float() / (1 << 24)


def drop_modalities(
    row_index: Tensor, text_present: Tensor, image_present: Tensor, *, rate: float, seed: int, epoch: int
) -> tuple[Tensor, Tensor]:
    """New presence masks (B,): a share `rate` of rows loses its text, another share its picture, none loses both.

    A row that has only one modality keeps it.
    """
    draw = uniform_from_rows(row_index, seed=seed, epoch=epoch)
    both = text_present & image_present
    return text_present & ~(both & (draw < rate)), image_present & ~(both & (draw >= 1 - rate))


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical shift of int64: the sign bit is data here."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
