"""Checks by the host of figures on the device, for which the device doesn't have to wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from data_utils.system.device_copies import fetch

Check = Callable[[Any], None]


class DeferredChecks:
    """Checks tensors by their values: on the CPU at once; on an accelerator when the next update has been queued.

    Reading a value waits until the accelerator has done all that was queued, and then leaves it idle until the host has
    queued more. So values are copied aside without waiting, and read one update later, when they have long arrived.
    By then one more update was made: whatever outlives the training is written after `finish` alone.
    """

    def __init__(self) -> None:
        self._current: list[tuple[Callable[[], Tensor], Check]] = []
        self._previous: list[tuple[Callable[[], Tensor], Check]] = []

    def add(self, values: Tensor, check: Check) -> None:
        """Call `check` with the values, of any shape, as numbers or lists of them; what it raises ends the training.

        It is called at the same place on all ranks, and has to keep what it needs to know of this update.
        """
        if values.device.type == "cpu":
            check(values.tolist())
        else:
            self._current.append((fetch(values), check))

    def end_update(self) -> None:
        """All of an update's values were added: check those of the update before."""
        arriving, self._previous, self._current = self._previous, self._current, []
        for wait, check in arriving:
            check(wait().tolist())

    def finish(self) -> None:
        """Check all that was added."""
        self.end_update()
        self.end_update()
