"""What reaches the screen: notices once per job, errors as one sentence."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from tqdm import tqdm

from data_utils.console.screen import printable, show_error, start_logging, without_notices
from data_utils.system.home import ensure_home
from data_utils.system.refusals import MachineError, RankError, describe_refusal, find_refusal, refuse_long_names
from modeling.errors import InputError
from training.launch.ranks import (
    exit_without_ranks,
    find_lost_contact,
    is_local_main_process,
    is_main_process,
    shut_down_distributed,
)
from training.launch.signals import REQUEUE_CODE, Interrupted

INTERRUPTED_CODE = 130  # 128 and the number of SIGINT, as of a shell
RESUME = "the same command and --resume_from_checkpoint latest"
GO_ON = f"then go on with {RESUME}"
# After this long the first rank of a machine has said what all of them met, and its launcher has ended the others.
SECONDS_TO_BE_ENDED = 10
PACKAGES = ("data_utils", "modeling", "training", "evaluation")


def set_up_logging() -> None:
    """Our notices on the main rank only; of libraries, their warnings there and their errors elsewhere."""
    start_logging()
    ensure_home()
    threading.excepthook = _report_thread
    for package in PACKAGES:
        logging.getLogger(package).setLevel(logging.INFO if is_main_process() else logging.ERROR)
    # DeepSpeed's use of torch, which its next release will mend.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")
    # Remarks on how it sorts checkpoints, which nobody can act on.
    logging.getLogger("transformers.trainer_utils").setLevel(logging.ERROR)
    # accelerate's, about the accumulation that Trainer does by itself.
    logging.getLogger("accelerate.accelerator").addFilter(lambda record: "steps mismatch" not in record.getMessage())


def set_up_libraries() -> None:
    """The same for transformers, whose import takes too long for a start that may end with --help."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # of saving and loading: a line for every checkpoint
    if not is_main_process():
        transformers_logging.set_verbosity_error()


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """End the program with one line, and code 2 on an `InputError`, code 1 on a `RankError`.

    Code 75 stands for an interrupted job, which can be resumed, code 130 for Ctrl-C, and code 1 also for ranks that are
    out of reach and for what the machine refuses.
    """
    try:
        with refuse_long_names():
            yield
    except Interrupted as stop:
        if is_main_process():
            tqdm.write(printable(stop), file=sys.stderr)
        shut_down_distributed(REQUEUE_CODE)
        sys.exit(REQUEUE_CODE)  # one process has no ranks to part from
    except KeyboardInterrupt:
        if is_main_process():
            tqdm.write(f"Stopped by Ctrl-C. A training goes on with {RESUME}.", file=sys.stderr)
        exit_without_ranks(INTERRUPTED_CODE)
    except InputError as error:  # meets every rank, or those of one machine; but what the machine refuses may meet one
        _let_first_rank_speak()
        if is_local_main_process() or find_refusal(error) is not None:
            _write_error(str(error))
        exit_without_ranks(2)
    except RankError as error:
        if isinstance(error, MachineError):  # may meet one rank or all
            _let_first_rank_speak()
        _write_error(str(error))
        exit_without_ranks(1)
    except Exception as error:
        reason = find_lost_contact(error) if isinstance(error, RuntimeError) else None
        if reason is None:
            sentence = describe_refusal(error)
            if sentence is None:
                raise
            _let_first_rank_speak()
            _write_error(sentence)
        elif is_local_main_process():
            _write_error(
                f"No contact to the other processes ({reason}): one of them ended, or its machine or network is down. "
                f"Go on with {RESUME}."
            )
        exit_without_ranks(1)


def _report_thread(failure: threading.ExceptHookArgs) -> None:
    """As Python does, but without a traceback of what the machine refused: the main thread meets it as well."""
    if failure.exc_value is None or find_refusal(failure.exc_value) is None:
        threading.__excepthook__(failure)


def _let_first_rank_speak() -> None:
    """A launcher that sees this rank end ends the one that speaks, which may be slower."""
    if not is_local_main_process():
        time.sleep(SECONDS_TO_BE_ENDED)


def _write_error(message: str) -> None:
    """Say which rank it is, unless it is the main one."""
    rank = "" if is_main_process() else f" (rank {os.environ['RANK']})"
    show_error(message, kind=f"error{rank}")


@contextmanager
def quiet(is_quiet: bool) -> Iterator[None]:
    """Without notices and warnings, where they were said before, of the first of many trainings."""
    with without_notices() if is_quiet else nullcontext():
        yield
