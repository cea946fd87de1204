"""A run folder for one job alone: how it is chosen and locked, and what becomes of an earlier run in it.

Both lie inside of the folder: it may be all that a job can write to, as a volume that is mounted into a container.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from data_utils.sources.quarantine import Quarantine
from data_utils.splits.split_file import Split, save_split
from data_utils.system.files import list_own, refuse_folder_links
from data_utils.system.refusals import describe_refusal
from modeling.errors import InputError
from run_files.run_folder import ARGUMENT_SECTIONS, ASIDE, LOCK, MOVING, RunFolder
from training.checkpoint.checkpoints import clear_leftovers
from training.flags.arguments import SentimentTrainingArguments
from training.flags.own import LATEST
from training.flags.parsing import Flags
from training.launch.checks import shares_files
from training.launch.ranks import is_main_process
from training.runs.tracking import with_project

logger = logging.getLogger(__name__)
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)


def find_run_path(flags: Flags) -> Path:
    """Where the run folder is to be."""
    output_dir = flags.training.output_dir or f"runs/{flags.model.model}-{flags.model.fusion}"
    return Path(os.path.realpath(Path(output_dir).expanduser()))


def make_run_folder(flags: Flags) -> RunFolder:
    """The run folder that --output_dir names, or model and fusion; refused if it holds something else than a run."""
    path = find_run_path(flags)
    run = RunFolder(path)
    try:
        str(path).encode()  # the reader of weights takes no name but one in UTF-8
        path.mkdir(parents=True, exist_ok=True)
    except (UnicodeEncodeError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else "which is no name in UTF-8"
        raise InputError(f"Can't make the run folder {path} ({reason}); choose another --output_dir.") from error
    if foreign := run.foreign_entries():
        raise InputError(f"--output_dir {path} holds other files ({foreign[0]}, ...); choose a folder of its own.")
    refuse_folder_links(path)
    return run


def settle_files(run: RunFolder, args: SentimentTrainingArguments) -> SentimentTrainingArguments:
    """Where in the run folder Trainer and the trackers write, and which machines do."""
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(run.path / "logs")
    return with_project(args).replace(
        output_dir=str(run.checkpoints_dir),
        run_name=args.run_name or run.path.name,
        save_on_each_node=args.save_on_each_node or not shares_files(run.path),
    )


@contextmanager
def lock_run(run: RunFolder) -> Iterator[None]:
    """Keep other jobs out of the run folder while this one lasts."""
    if not is_main_process():
        yield
        return
    path = run.path / LOCK
    lock = FileLock(path)
    try:
        run.path.mkdir(parents=True, exist_ok=True)  # a refused job may have removed it meanwhile
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError(f"Another job trains in {run.path}; choose another --output_dir, or wait.") from error
    except OSError as error:  # no right to write, or a link or a folder in its place
        if error.errno not in WITHOUT_LOCKS:
            raise InputError(
                (error.errno != errno.ELOOP and describe_refusal(error, path=run.path))
                or f"Can't lock {run.path} by {path} ({error.strerror}): take away what lies there, or choose another "
                "--output_dir."
            ) from error
        logger.warning("The volume of %s has no locks: see to it that no other job trains there.", run.path)
    try:
        _finish_moving(run.path)
        yield
    finally:
        with suppress(OSError):
            path.unlink()
            run.path.rmdir()  # still empty: the training was refused
        lock.release()


def make_room(run: RunFolder, args: SentimentTrainingArguments, *, checkpoint: str | None) -> None:
    """Make room: an earlier run is moved aside, never overwritten, unless this run resumes it."""
    is_named = checkpoint is not None and Path(checkpoint).parent == run.checkpoints_dir
    goes_on = args.resume_from_checkpoint == LATEST or is_named
    with args.main_process_first(local=False):
        if args.should_save:
            clear_leftovers(run.checkpoints_dir)
            # What cross-validation or the baselines left is no training that could go on here.
            if run.config_file.exists() and not (goes_on and set(run.load_arguments()) <= {*ARGUMENT_SECTIONS}):
                move_aside(run.path)


def open_folder(
    run: RunFolder, sections: Mapping[str, Mapping[str, Any]], splits: Sequence[Split], quarantine: Quarantine
) -> None:
    """Move an earlier run aside, and write what is known of one over folds (or one split) before it begins."""
    if run.config_file.exists():
        move_aside(run.path)
    for number, split in enumerate(splits):
        save_split(split, run.fold_split_file(number) if len(splits) > 1 else run.split_file)
    quarantine.save(run.quarantine_file)
    run.save_arguments(sections)  # last: where it stands, the next start goes on and writes none of these


def move_aside(folder: Path) -> None:
    """Move an earlier run out of its folder, to a free name beside it, else inside of it, and say so.

    The folder itself stays, as it may be where a volume is mounted.
    """
    _finish_moving(folder)
    (folder / MOVING).mkdir()
    earlier = [path for path in list_own(folder) if path.name not in (LOCK, MOVING) and not path.name.startswith(ASIDE)]
    # By its config.yaml a folder is known as a run: it goes last.
    for path in sorted(earlier, key=lambda path: path.name == RunFolder(folder).config_file.name):
        path.rename(folder / MOVING / path.name)
    _finish_moving(folder)


def _finish_moving(folder: Path) -> None:
    """Say where it is now, also for a job that was killed before it could."""
    if (folder / MOVING).exists():
        try:
            moved = (folder / MOVING).rename(_find_free(f"{folder}.old-"))
        except OSError:  # beside the folder may be another disk, or no right to write
            moved = (folder / MOVING).rename(_find_free(f"{folder / ASIDE}"))
        logger.warning("%s held an earlier run, which is now in %s.", folder, moved)


def _find_free(prefix: str) -> Path:
    paths = (Path(f"{prefix}{number}") for number in itertools.count(1))
    return next(path for path in paths if not os.path.lexists(path))
