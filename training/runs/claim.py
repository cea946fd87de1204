"""A run folder for one job alone: its lock, and what becomes of an earlier run in it.

Both lie inside of the folder: it may be all that a job can write to, as a volume that is mounted into a container.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from data_utils.system.files import list_own
from data_utils.system.refusals import describe_refusal
from modeling.errors import InputError
from run_files.run_folder import RunFolder
from training.launch.ranks import is_main_process

logger = logging.getLogger(__name__)
LOCK = ".lock"
# Where an earlier run is gathered before it gets a name, and the begin of that name inside of the folder.
MOVING, ASIDE = ".moving", "old-"
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)


@contextmanager
def lock_run(run: RunFolder) -> Iterator[None]:
    """Keep other jobs out of the run folder while this one lasts.

    Raises:
        InputError: another job trains in it, or nothing can be written there.
    """
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
        logger.warning("%s held an earlier run, which is now in %s.", folder, _name(folder))


def _name(folder: Path) -> Path:
    """Give what was gathered a name of its own; beside the folder may be another disk, or no right to write."""
    try:
        return (folder / MOVING).rename(_find_free(f"{folder}.old-"))
    except OSError:
        return (folder / MOVING).rename(_find_free(f"{folder / ASIDE}"))


def _find_free(prefix: str) -> Path:
    number = 1
    while os.path.lexists(path := Path(f"{prefix}{number}")):
        number += 1
    return path
