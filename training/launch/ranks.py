"""Which process of the launch this is, and how it ends; nothing heavy is imported, so that any start can end soon."""

from __future__ import annotations

import atexit
import os
import re
import sys
from types import ModuleType
from typing import NoReturn

# gloo raises plain RuntimeErrors; most begin with the path of its source.
GLOO_MESSAGE = re.compile(r"/gloo/|Gloo connect|Application timeout caused pair closure")


def is_main_process() -> bool:
    """Whether this is rank 0 of the launch (known from the environment, before any process group exists)."""
    return os.environ.get("RANK", "0") == "0"


def is_local_main_process() -> bool:
    """Whether this is the first process of its machine."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def launched_world_size() -> int:
    """How many processes the launcher started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def uses_deepspeed() -> bool:
    """Whether accelerate was told to use DeepSpeed."""
    return os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"


def uses_fsdp() -> bool:
    """Whether accelerate was told to use FSDP."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def find_lost_contact(error: RuntimeError) -> str | None:
    """Why the other ranks can't be reached any more, if this is what the error is about; else None."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not (isinstance(error, distributed.DistError) or GLOO_MESSAGE.search(str(error))):
        return None
    # The first line, without the place in the library's source; what follows may be its stack.
    return re.sub(r"^\[\S+\] ", "", str(error).strip()).splitlines()[0].rstrip(".")


def shut_down_distributed(exit_code: int = 0) -> None:
    """Destroy the process group; under gloo this ends the process, with `exit_code`.

    gloo's threads free the tensors of finished work at any later time, and one that does so while Python shuts down
    aborts the process after all was done (pytorch/pytorch#179291). So all that runs at exit runs here, and what
    follows it, the shutdown of the interpreter, is left out.
    """
    distributed = _find_group()
    if distributed is not None:
        uses_gloo = "gloo" in distributed.get_backend()
        distributed.destroy_process_group()
        if uses_gloo:
            _end_process(exit_code)


def exit_without_ranks(exit_code: int) -> NoReturn:
    """End the program after an error, without waiting for ranks that may not have met it."""
    if _find_group() is not None:
        _end_process(exit_code)
    sys.exit(exit_code)


def _end_process(exit_code: int) -> NoReturn:
    """Run what runs at exit, then end without shutting down the interpreter or the process group."""
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


def _find_group() -> ModuleType | None:
    """`torch.distributed`, once there is a process group."""
    distributed = sys.modules.get("torch.distributed")
    # A stop signal may come while it is being imported.
    is_there = distributed is not None and hasattr(distributed, "is_initialized") and distributed.is_initialized()
    return distributed if is_there else None
