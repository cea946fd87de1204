"""A home for an account that has none, as in a container under any user number, or none that it may write to."""

from __future__ import annotations

import getpass
import os
import tempfile
from contextlib import suppress
from pathlib import Path


def ensure_home() -> None:
    """Name a temporary folder, or a user, where the system knows none; libraries ask when they are imported.

    A home that is there but may not be written to stays the place of models that were fetched before.
    """
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["USER"] = f"user-{os.getuid()}"
    try:
        home = Path.home()
    except RuntimeError:
        home = Path()
    if not home.is_absolute() or not home.is_dir():
        os.environ["HOME"] = temporary_home()
        return
    cache = home / ".cache"
    if os.access(cache if cache.is_dir() else home, os.W_OK | os.X_OK):
        return
    if (cache / "huggingface").is_dir():
        os.environ.setdefault("HF_HOME", str(cache / "huggingface"))
    for name in ("XDG_CACHE_HOME", "TRITON_CACHE_DIR"):
        if name not in os.environ:
            os.environ[name] = temporary_home()


def temporary_home() -> str:
    """A folder of this user's own, the same for every process; another one where somebody else has taken its name."""
    path = Path(tempfile.gettempdir(), f"multimodal-sentiment-{os.getuid()}")
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    status = path.lstat()
    if path.is_dir() and not path.is_symlink() and status.st_uid == os.getuid():
        return str(path)
    return tempfile.mkdtemp(prefix=f"{path.name}-")


def count_cores() -> int:
    """Cores that this process may use, where the system tells; else those of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
