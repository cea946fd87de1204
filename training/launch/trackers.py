"""The trackers of --report_to, and what they are shown beside Trainer's own figures."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.trainer_callback import CallbackHandler

from modeling.errors import InputError, check_choice

FINAL = "final/"
GROUP = "WANDB_RUN_GROUP"  # of the environment: what runs that belong together are called
# What pip installs of the trackers whose package has another name than they, or that are most used.
_PACKAGES = {"wandb": "wandb", "mlflow": "mlflow-skinny", "trackio": "trackio", "tensorboard": "tensorboard"}
# Trackers that would write train/final/... for final/...: the function of their package that keeps names.
_LOGGERS = {"wandb": "log", "trackio": "log", "swanlab": "log"}
# Trackers that leave their run open, in which the next training of the process would go on.
_FINISHERS = {"wandb": "finish", "swanlab": "finish", "comet_ml": "end"}


@contextmanager
def tracked(folder: Path, group: str) -> Iterator[None]:
    """While the runs of a folder last, trackers write below its logs/, reach for no network and group the runs.

    What the environment says already wins: as of the larger group that these runs belong to.
    """
    logs = folder / "logs"
    wanted: dict[str, str | Path] = {
        **{"WANDB_MODE": "offline", "WANDB_DIR": logs, GROUP: group, "WANDB_SILENT": "true"},
        **{f"WANDB_{kind}_DIR": logs / "wandb" / kind.lower() for kind in ("CACHE", "CONFIG", "DATA")},
        **{"WANDB_ERROR_REPORTING": "false", "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_EXPERIMENT_NAME": group},
        # Without a database's packages MLflow has files alone, which it must be told to take.
        **{"MLFLOW_TRACKING_URI": (logs / "mlruns").as_uri(), "MLFLOW_ALLOW_FILE_STORE": "true"},
        "TRACKIO_DIR": logs / "trackio",
    }
    own = {name: str(value) for name, value in wanted.items() if name not in os.environ}
    os.environ |= own
    try:
        yield
    finally:
        for name in own:
            del os.environ[name]


class OpenTracker:
    """One of transformers' trackers, by its name of --report_to, whose run ends when it has the final figures."""

    def __init__(self, name: str, tracker: Any) -> None:
        self._name, self._tracker = name, tracker
        self._finish: Callable[[], object] | None = None

    def __getattr__(self, event: str) -> Any:
        return getattr(vars(self)["_tracker"], event)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any],
        **rest: Any,
    ) -> None:
        """As the tracker's; final figures keep their names."""
        final = {name: value for name, value in logs.items() if name.startswith(FINAL)}
        if not final:
            self._tracker.on_log(args, state, control, logs=logs, **rest)
        elif not state.is_world_process_zero:
            return
        elif self._name == "tensorboard":
            for name, value in final.items():
                self._tracker.tb_writer.add_scalar(name, value, state.global_step)
        elif self._name in _LOGGERS:
            getattr(import_module(self._name), _LOGGERS[self._name])(final)
        else:
            self._tracker.on_log(args, state, control, logs=final, **rest)

    def show(self, pictures: Sequence[Path]) -> None:
        """Pictures, as TensorBoard, wandb, MLflow and trackio have them."""
        for path in pictures:
            if self._name == "tensorboard":
                image = np.asarray(Image.open(path).convert("RGB"))
                self._tracker.tb_writer.add_image(path.stem, image, dataformats="HWC")
            elif self._name == "mlflow":
                mlflow = import_module("mlflow")
                mlflow.flush_async_logging()  # it reads the figures' files again, which a thread may be writing
                mlflow.log_artifact(str(path))
            elif self._name in ("wandb", "trackio"):
                package = import_module(self._name)
                package.log({path.stem: package.Image(str(path))})

    def on_predict(self, *_: Any, **__: Any) -> None:
        """Nothing: of the kept model the final figures are shown, by the part that they are of."""

    def on_train_end(self, args: TrainingArguments, state: TrainerState, *rest: Any, **kwargs: Any) -> None:
        """Put off until `end`."""

        def finish() -> None:
            self._tracker.on_train_end(args, state, *rest, **kwargs)
            if state.is_world_process_zero and self._name in _FINISHERS:
                getattr(import_module(self._name), _FINISHERS[self._name])()

        self._finish = finish

    def end(self) -> None:
        """End the tracker's run, so that the next training of the process has one of its own."""
        if self._finish is not None:
            self._finish()


def keep_trackers_open(handler: CallbackHandler) -> list[OpenTracker]:
    """Put a `OpenTracker` in place of each tracker among a trainer's callbacks."""
    names = {kind: name for name, kind in INTEGRATION_TO_CALLBACK.items()}
    handler.callbacks = [
        OpenTracker(names[type(each)], each) if type(each) in names else each for each in handler.callbacks
    ]
    return [each for each in handler.callbacks if isinstance(each, OpenTracker)]


def final_figures(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The figures of metrics.json by names for trackers: of the validation part final/accuracy and final/accuracy_low
    and _high, of held-out rows final/test_accuracy and so on."""
    parts = {FINAL: metrics.get("val"), f"{FINAL}test_": metrics.get("test")}
    return {name: value for prefix, part in parts.items() for name, value in _flatten(prefix, part or {})}


def _flatten(prefix: str, figures: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in figures.items():
        if isinstance(value, int | float):
            yield prefix + name, value
        elif isinstance(value, Mapping):
            yield from _flatten(f"{prefix}{name}/", value)
        elif name.endswith("_interval"):
            base = prefix + name.removesuffix("_interval")
            yield from zip((f"{base}_low", f"{base}_high"), value, strict=True)


def show_settings(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str | int | float]:
    """Settings without maps, lists and None, on which trackers end: {"a/b": value}, the rest as words."""
    shown: dict[str, str | int | float] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            shown |= show_settings(value, f"{prefix}{name}/")
        else:
            shown[prefix + name] = value if isinstance(value, str | int | float) else json.dumps(value, default=str)
    return shown


def list_trackers(names: Sequence[str]) -> list[str]:
    """The trackers of --report_to (words, with or without commas), each once; `InputError` for any that is missing."""
    words = names.split() if isinstance(names, str) else names
    found = list(dict.fromkeys(name for word in words for name in str(word).split(",") if name))
    if found in (["none"], []):
        return []
    if found == ["all"]:
        return found  # all that are there, which Trainer lists
    for name in found:
        check_choice("--report_to", name, (*INTEGRATION_TO_CALLBACK, "none", "all"))
        if name in ("none", "all"):
            raise InputError(f"Got --report_to {' '.join(found)}; {name} stands alone.")
        if (missing := _find_missing(name)) is not None:
            package = _PACKAGES.get(name)
            remedy = "install its package" if package is None else f"pip install {package}"
            raise InputError(f"Got --report_to {name}, which can't be had here ({missing}); {remedy}.")
    return found


def _find_missing(name: str) -> str | None:
    """What a tracker lacks to be built, in its own words; None for one that can be."""
    if name in _PACKAGES:  # not built, as on import they look where they are to write, which is not yet known
        return None if find_spec(name) is not None else f"the package {_PACKAGES[name]} is not installed"
    # Some print a traceback when they are cleared away half built, which they are at the end of `except`.
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        INTEGRATION_TO_CALLBACK[name]()
    except (ImportError, RuntimeError, ValueError) as error:
        return str(error)
    finally:
        sys.unraisablehook = hook
    return None
