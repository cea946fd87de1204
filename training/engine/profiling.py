"""Where the time of an update goes: a trace and a table by torch's profiler."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile, schedule, supported_activities
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from data_utils.system.files import temporary_path, write_text
from data_utils.system.refusals import MachineError, describe_room

logger = logging.getLogger(__name__)
# The first updates are slow in ways of their own: memory is asked for, kernels are chosen or compiled.
WARM_UP, RECORDED = 3, 3
ROWS = 30


class ProfileCallback(TrainerCallback):
    """Records updates 4 to 6 of a launch on each rank, and writes what they consist of into `folder`.

    Files: trace-rank0.json for chrome://tracing or Perfetto, table-rank0.txt with the operations by their own time,
    summed over the recorded updates.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.profiler: profile | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        steps = WARM_UP + RECORDED
        if state.max_steps - state.global_step < steps:
            logger.warning("--profile records updates %d to %d: this launch makes fewer.", WARM_UP + 1, steps)
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self.profiler = profile(
            activities=supported_activities() & {ProfilerActivity.CPU, ProfilerActivity.CUDA, ProfilerActivity.XPU},
            schedule=schedule(wait=WARM_UP - 1, warmup=1, active=RECORDED, repeat=1),
            on_trace_ready=lambda profiler: self._write(profiler, rank=args.process_index),
        )
        self.profiler.start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.profiler is not None:
            self.profiler.step()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.profiler is not None:
            self.profiler.stop()
            self.profiler = None

    def _write(self, profiler: profile, *, rank: int) -> None:
        trace = self.folder / f"trace-rank{rank}.json"
        grown = temporary_path(trace)
        profiler.export_chrome_trace(str(grown))
        if not grown.exists():  # the profiler says so in a line of its own, and goes on
            grown.with_name(f"{grown.name}.tmp").unlink(missing_ok=True)
            raise MachineError(f"Cannot write {trace}{describe_room(trace)}; make room there, or leave out --profile.")
        os.replace(grown, trace)
        averages = profiler.key_averages()
        on_cpu = profiler.activities == {ProfilerActivity.CPU}
        table = averages.table(sort_by="self_cpu_time_total" if on_cpu else "self_device_time_total", row_limit=ROWS)
        write_text(self.folder / f"table-rank{rank}.txt", f"{RECORDED} updates\n{table}\n")
        logger.info("The profile of updates %d to %d is in %s.", WARM_UP + 1, WARM_UP + RECORDED, self.folder)
