"""The files of a run, and where they lie."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from data_utils.system.files import list_own, write_text
from data_utils.system.schema import COPY_AGAIN, read_json, read_yaml
from modeling.errors import InputError
from run_files.schema import ConfigFile, MetricsFile

_CONTENTS = "A run folder has config.yaml and model/ in it, as train.py leaves them"
ARGUMENT_SECTIONS = ("model", "data", "training", "environment")
# The lock of a job, where an earlier run is gathered before it gets a name, and the begin of that name.
LOCK, MOVING, ASIDE = ".lock", ".moving", "old-"
# What a run folder may hold before it has a config.yaml: of a job that was killed early.
_ENTRIES = (
    *(LOCK, MOVING, "checkpoints", "logs", "model", "adapter", ".model.partial", "split.json", "splits", "members"),
    *("quarantine.csv", "encodings.csv"),
)
_TEMPORARY = (ASIDE, ".seen-", ".config.yaml.", ".split.json.", ".quarantine.csv.", ".encodings.csv.")
# Folders of other work, by a section of their config.yaml, and what can be done with them.
_WITHOUT_MODEL = {
    "sweep": "the folder of a sweep, whose trials leave no model. Train one with the flags in its trials/NNNN.json and "
    "pass that run; evaluate.py compare takes the files in its predictions/.",
    "baselines": "the folder of baselines, which leave no model: their figures are in its metrics.json, and "
    "evaluate.py compare takes its .csv files beside a run.",
}


class RunFolder:
    """Paths inside a run folder, which `train.py` fills; making the object touches no file."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.yaml"  # every argument, resolved, and the environment
        self.model_dir = self.path / "model"  # the best model, its tokenizer and preprocessing, for `from_pretrained`
        self.adapter_dir = self.path / "adapter"  # with --lora_rank, those of the towers, which model/ has in it
        self.split_file = self.path / "split.json"  # the guids of each part, the seed and the hash
        self.metrics_file = self.path / "metrics.json"  # the final figures of train.py
        # Label, prediction and probabilities of the rows of a part; the test part is written where the split has one.
        self.predictions_files = {part: self.path / f"predictions_{part}.csv" for part in ("val", "test")}
        self.predictions_file = self.predictions_files["val"]
        self.bad_cases_file = self.path / "bad_cases.csv"  # the misjudged validation rows of the best epoch
        self.history_file = self.path / "history.json"  # losses and metrics as they were logged in training
        self.report_file = self.path / "report.html"  # all that is known of it, on one page
        self.abstention_file = self.path / "abstention.json"  # what evaluate.py --abstain learned
        self.quarantine_file = self.path / "quarantine.csv"  # what was wrong with the data: row, reason, action
        self.interrupted_file = self.path / "interrupted.json"  # while a job that a signal stopped can be resumed
        self.checkpoints_dir = self.path / "checkpoints"  # of the trainer

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """The run at `path`; `InputError` when it is not there, not a run, or not finished."""
        run = cls(path)
        run.check_config()
        if not (run.model_dir / "config.json").is_file():
            for section, remedy in _WITHOUT_MODEL.items():
                if section in run.load_arguments():
                    raise InputError(f"Got {str(path)!r}, {remedy}")
            raise InputError(
                f"The run {str(path)!r} has no model/config.json. {_CONTENTS}; "
                "it was stopped before it saved a model: resume it, or pass another run."
            )
        return run

    def check_config(self) -> None:
        """`InputError` unless the folder is there, with a config.yaml in it."""
        if not self.config_file.is_file():
            fault = "which has no config.yaml" if self.path.is_dir() else "which is not a folder"
            raise InputError(f"Got the run {str(self.path)!r}, {fault}. {_CONTENTS}: pass its --output_dir.")

    def is_run(self) -> bool:
        """Whether it has a config.yaml that train.py wrote."""
        try:
            return self.config_file.is_file() and bool(self.load_arguments())
        except InputError:
            return False

    def foreign_entries(self) -> list[str]:
        """Names of what lies in the folder and is no run's; none where there is a config.yaml."""
        names = [entry.name for entry in list_own(self.path)]
        foreign = [name for name in names if name not in _ENTRIES and not name.startswith(_TEMPORARY)]
        return foreign if foreign and not self.is_run() else []

    def fold_split_file(self, fold: int) -> Path:
        """The split of a fold where there are folds."""
        return self.path / "splits" / f"fold-{fold}.json"

    def save_arguments(self, sections: Mapping[str, Mapping[str, Any]]) -> None:
        """Write config.yaml. `sections` has the keys of `ARGUMENT_SECTIONS`; paths and enums are written as text."""
        write_text(self.config_file, yaml.safe_dump(_plain(sections), sort_keys=False, allow_unicode=True))

    def load_arguments(self) -> dict[str, dict[str, Any]]:
        """Read config.yaml as {section: {name: value}}; `InputError` when it is not one of train.py's."""
        return read_yaml(self.config_file, ConfigFile)

    def load_metrics(self, kind: Any = MetricsFile, *, remedy: str = COPY_AGAIN) -> dict[str, Any]:
        """metrics.json, of the types that `kind` says; `InputError` where damaged, FileNotFoundError without one."""
        return read_json(self.metrics_file, kind, remedy=remedy)


def _plain(value: Any) -> Any:
    """The value in YAML's own types; what has none is written as its text."""
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    return value if type(value) in (bool, int, float, str, type(None)) else str(value)
