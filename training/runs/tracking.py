"""What trackers are shown of pieces of work that are no training of Trainer's: trials of a sweep, folds together."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from training.flags.arguments import SentimentTrainingArguments
from training.flags.parsing import Flags
from training.launch.trackers import GROUP, OpenTracker, final_figures


def with_project(args: SentimentTrainingArguments) -> SentimentTrainingArguments:
    """With trackio's project: the group, unless one is given; Trainer's default is one for all that is ever trained."""
    return args.replace(project=os.environ[GROUP] if args.project == TrainingArguments.project else args.project)


def show_result(
    flags: Flags,
    folder: Path,
    name: str,
    metrics: Mapping[str, Any],
    *,
    pictures: Sequence[Path] = (),
    **settings: Mapping[str, Any],
) -> None:
    """A run of its own in each tracker of the flags, of what a piece of work came to.

    Args:
        flags: shown as its settings, beside `settings`.
        folder: of the work, below whose logs/ TensorBoard gets a folder.
        name: of the run.
        metrics: as in metrics.json, see `final_figures`.
        pictures: PNG files.
    """
    model, data, args = flags
    args = with_project(args.replace(run_name=name)).beside(model=asdict(model), data=asdict(data), **settings)
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(folder / "logs" / name)
    state, control = TrainerState(), TrainerControl()
    for tracker in (OpenTracker(each, INTEGRATION_TO_CALLBACK[each]()) for each in args.report_to):
        tracker.on_train_begin(args, state, control)
        tracker.on_log(args, state, control, final_figures(metrics))
        tracker.show(pictures)
        tracker.on_train_end(args, state, control)
        tracker.end()
