"""DeepSpeed's optimizer state, out of a checkpoint of any ranks and ZeRO stage into an engine of any others."""

from __future__ import annotations

import contextlib
import logging
import os
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, distributed

from data_utils.system.files import remove
from data_utils.system.refusals import MachineError, describe_refusal
from training.checkpoint.checkpoints import CONVERTED
from training.checkpoint.pickles import load_pickle
from training.checkpoint.sharding import local_shard
from training.launch.console import GO_ON

logger = logging.getLogger(__name__)
MOMENTS = ("exp_avg", "exp_avg_sq")
STEP = "step"


def load_moments(engine: Any, checkpoint: Path) -> bool:
    """Put the moments and the number of updates of Adam's kind into an engine's shards; a collective of all ranks.

    The engine isn't asked to load the converted checkpoint by itself (`load_universal`): under ZeRO-3 it gives every
    group of parameters the first one's learning rate and weight decay (deepspeed 0.19.8).

    Args:
        engine: DeepSpeedEngine of any ZeRO stage; its weights are left as they are.
        checkpoint: folder with DeepSpeed's global_stepN, on a file system that all ranks see.

    Returns:
        Whether it could be done; if not, nothing was changed.
    """
    from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

    with _converted(checkpoint) as folder:
        names = [name for name, parameter in engine.module.named_parameters() if parameter.requires_grad]
        files = [folder / name / f"{moment}.pt" for name in names for moment in MOMENTS]
        if not all(gather_object([all(file.is_file() for file in files)])):
            return False
        is_stage_3 = engine.zero_optimization_stage() == 3
        _make_states(engine.optimizer, updates=_read_updates(folder, names[0]), is_stage_3=is_stage_3)
        for name, parameter in engine.module.named_parameters():
            if parameter.requires_grad:
                for moment in MOMENTS:
                    value = _read(folder / name / f"{moment}.pt")
                    value = value.to(parameter.device)
                    if is_stage_3:
                        safe_set_local_optimizer_state(parameter, local_shard(value), moment)
                    else:
                        safe_set_full_optimizer_state(parameter, value, moment)
    return True


def _make_states(optimizer: Any, *, updates: float, is_stage_3: bool) -> None:
    """Give each flat shard of ZeRO's optimizer the state that its first update makes, and the number of updates."""
    shards = optimizer.fp32_partitioned_groups_flat if is_stage_3 else optimizer.single_partition_of_fp32_groups
    for shard in shards:
        moments = {moment: torch.zeros_like(shard, requires_grad=False) for moment in MOMENTS}
        optimizer.optimizer.state[shard] = {STEP: torch.tensor(updates, device=shard.device), **moments}
    if not is_stage_3:
        optimizer._lazy_init_hp_params_optimizer_state()  # ties the parameters to their pieces of the shards


@contextlib.contextmanager
def _converted(checkpoint: Path) -> Iterator[Path]:
    """A folder per parameter with its whole moments, made by rank 0 beside the checkpoint and removed afterwards."""
    from deepspeed.checkpoint import ds_to_universal

    target = checkpoint.with_name(CONVERTED)
    if distributed.get_rank() == 0:
        remove(target)
        options = {"num_extract_workers": 1, "num_merge_workers": 1, "keep_temp_folder": False, "strict": True}
        folders = {
            "input_folder": str(next(checkpoint.glob("global_step*"), checkpoint)),
            "output_folder": str(target / "whole"),
        }
        # It talks on both streams, and takes its two worker counts for processes only where they are over 1.
        try:
            with open(os.devnull, "w") as null, contextlib.redirect_stdout(null), contextlib.redirect_stderr(null):
                ds_to_universal.main(Namespace(**folders, **options, inject_missing_state=True))
        except Exception as error:
            remove(target)
            sentence = describe_refusal(error, path=target, need=_count_bytes(checkpoint), again=GO_ON)
            if sentence is not None:
                raise MachineError(sentence) from error
            # What it can't convert leaves no files, on which the ranks agree afterwards; it raises anything.
            logger.warning("%s can't be converted: %s", checkpoint, f"{type(error).__name__}: {error}")
    distributed.barrier()
    try:
        yield target / "whole" / "zero"
    finally:
        distributed.barrier()
        if distributed.get_rank() == 0:
            remove(target)


def _count_bytes(checkpoint: Path) -> int:
    return sum(path.stat().st_size for path in checkpoint.rglob("*") if path.is_file())


def _read(file: Path) -> Tensor:
    """One parameter's whole moment, in the parameter's shape."""
    content = load_pickle(file)
    return content["param"] if isinstance(content, dict) else content


def _read_updates(folder: Path, name: str) -> float:
    """Updates made: beside each parameter under ZeRO-1 and 2, in the common state under ZeRO-3."""
    file = folder / name / f"{STEP}.pt"
    if file.is_file():
        return float(load_pickle(file))
    return float(load_pickle(folder / "optimizer_state.pt")["optimizer_state_dict"]["state"][0][STEP])
