"""What a run's config.yaml says: its flags, and where and with what it was trained."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from data_utils.splits.split_file import Split
from run_files.run_folder import RunFolder
from training.build.plan import name_sources
from training.flags.arguments import NEUTRAL_FLAGS
from training.flags.parsing import Flags

PACKAGES = ("torch", "transformers", "accelerate", "deepspeed", "datasets", "evaluate", "pillow")


def describe_run(run: RunFolder, flags: Flags, fingerprints: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The sections of config.yaml: every flag as it was resolved, and what a figure can be traced to."""
    model, data, args = flags
    return {
        "model": asdict(model),
        "data": asdict(data) | data.resolved(),
        "training": args.to_plain_dict() | {"output_dir": str(run.path)},
        "environment": {
            "python": platform.python_version(),
            "versions": {package: version(package) for package in PACKAGES},
            "git_commit": _git_commit(),
            "world_size": args.world_size,
            "device": str(args.device),
            "mixed_precision": str(args.mixed_precision),
            "distributed": str(args.parallel_mode.value),
            "sources": name_sources(model),
            **fingerprints,
        },
    }


def hash_flags(sections: Mapping[str, Mapping[str, Any]], *others: Any) -> str:
    """A digest of the flags that decide the figures of a run, from its config.yaml, and of other values."""
    training = {name: value for name, value in sections["training"].items() if name not in NEUTRAL_FLAGS}
    content = [sections["model"], training, *others]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def hash_splits(splits: Sequence[Split]) -> str:
    """A digest of which rows lie in which part of each."""
    return hashlib.sha256(" ".join(split.sha256 for split in splits).encode()).hexdigest()


def _git_commit() -> str | None:
    """Commit of this program's checkout; None where it is no checkout."""
    with suppress(OSError, subprocess.CalledProcessError):
        command = ["git", "rev-parse", "HEAD"]
        return subprocess.check_output(command, cwd=Path(__file__).parent, stderr=subprocess.DEVNULL, text=True).strip()
    return None
