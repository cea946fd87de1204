"""Going on from a checkpoint: which one, and whether it belongs to this very run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from transformers.trainer import TRAINER_STATE_NAME

from data_utils.system.refusals import refuse_unreadable
from data_utils.system.schema import read_json
from modeling.classifier import SentimentClassifier
from modeling.errors import InputError
from run_files.run_folder import RunFolder
from run_files.schema import StateFile
from training.build.parameters import check_frozen_weights, check_weights_fit
from training.checkpoint import checkpoints
from training.checkpoint.pickles import check_pickles
from training.data.data import TrainingData
from training.data.stream_data import StreamedData
from training.flags.arguments import SentimentTrainingArguments
from training.flags.own import LATEST

logger = logging.getLogger(__name__)
FINGERPRINTS = {
    "data_fingerprint": "The data, or how they are read, differ",
    "split_sha256": "The split differs (--seed, --val_ratio or --split_file)",
    "tokens_sha256": "The tokenizer or --max_length differs",
    "rows_sha256": "The rows or their order differ (--seed, --max_train_samples, --max_eval_samples; with --streaming "
    "also --data_seed, the number of processes, --dataloader_num_workers, --per_device_train_batch_size, "
    "--shuffle_buffer_size)",
}


def find_checkpoint(run: RunFolder, args: SentimentTrainingArguments) -> tuple[str | None, SentimentTrainingArguments]:
    """The checkpoint folder to go on from, the same on every rank, and the arguments to do it with; None starts anew.

    With them an update has as many rows as it had for the job that wrote the checkpoint.
    """
    wanted = args.resume_from_checkpoint
    if wanted is None:
        return None, args
    if wanted == LATEST:
        checkpoint = _newest(run.checkpoints_dir, reads_all=args.should_save)
    else:
        checkpoint = _named(wanted, reads_all=args.should_save)
    manifest = None if checkpoint is None else checkpoints.read_manifest(checkpoint)
    if checkpoint is None or manifest is None:
        logger.warning("No checkpoint in %s yet: starting from the beginning.", run.checkpoints_dir)
        return None, args
    if manifest.optimizer == checkpoints.NO_OPTIMIZER:
        raise InputError(
            f"{checkpoint} was written with --save_only_model: there is no optimizer or schedule to go on with. "
            "Start anew, or name a checkpoint that has them."
        )
    check_pickles(checkpoint)
    read_json(checkpoint / TRAINER_STATE_NAME, StateFile, remedy="use an earlier checkpoint")
    _check_update_flags(checkpoint, manifest.update_flags, args.update_flags)
    args = args.with_global_batch_size(manifest.global_batch_size)
    if manifest.world_size != args.world_size:
        logger.warning(
            "%s was written by %d processes and is gone on from by %d: rows and updates stay the same, dropout's "
            "random numbers don't.",
            *(checkpoint, manifest.world_size, args.world_size),
        )
    return str(checkpoint), args


def _named(wanted: str, *, reads_all: bool) -> Path:
    """The checkpoint that the flag names; `InputError` where it isn't whole."""
    checkpoint = Path(wanted).expanduser().resolve()
    if _is_whole_everywhere(checkpoint, reads_all=reads_all):
        return checkpoint
    raise InputError(
        f"Got --resume_from_checkpoint {wanted!r}, which is no folder with a {checkpoints.MANIFEST} and all files that "
        f"it names, undamaged, on every machine; name a whole checkpoint-N folder, or {LATEST}."
    )


def _newest(folder: Path, *, reads_all: bool) -> Path | None:
    """The newest checkpoint that is whole on every rank's machine; older ones than that aren't read."""
    if checkpoints.is_being_written(folder):
        logger.warning("The job ended while it wrote a checkpoint; what there is of it is passed over.")
    names = gather_object([checkpoint.name for checkpoint in checkpoints.list_checkpoints(folder)])
    for checkpoint in sorted((folder / name for name in set(names)), key=checkpoints.step_of, reverse=True):
        if _is_whole_everywhere(checkpoint, reads_all=reads_all):
            return checkpoint
        logger.warning("%s is incomplete or damaged and is passed over.", checkpoint)
    return None


def _is_whole_everywhere(checkpoint: Path, *, reads_all: bool) -> bool:
    """Whether a checkpoint is whole on every rank's machine; a collective of all ranks.

    One rank of each file system (`reads_all`) also compares the files' content: hundreds would read the same files.
    """
    if checkpoint.is_dir():
        refuse_unreadable(checkpoint)
    whole = checkpoints.is_intact(checkpoint) if reads_all else checkpoints.read_manifest(checkpoint) is not None
    return all(gather_object([whole]))


def _check_update_flags(checkpoint: Path, earlier: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse other flags of the updates: the optimizer's state brings its own back in, and config.yaml would lie."""
    differing = [
        f"--{name} {earlier[name]} (got {value})" for name, value in now.items() if earlier.get(name, value) != value
    ]
    if differing:
        raise InputError(
            f"{checkpoint} was trained with {', '.join(differing)}; leave these flags as they were, or start a new run."
        )


def check_continues(checkpoint: str, model: SentimentClassifier, prepared: TrainingData | StreamedData) -> None:
    """Refuse to go on with another model, or with other rows than those the checkpoint was trained on.

    A new split would put rows that were trained on into the validation part, and its figures would be too good.
    """
    weights = Path(checkpoint, "model.safetensors")
    if weights.is_file():
        check_weights_fit(model, weights)
        check_frozen_weights(model, weights)
    run = RunFolder(Path(checkpoint).resolve().parent.parent)
    if run.is_run():
        earlier, now = run.load_arguments()["environment"], prepared.fingerprints()
        for name, fault in FINGERPRINTS.items():
            if earlier.get(name) not in (None, now[name]):
                split = f" and --split_file {run.split_file}" if run.split_file.exists() else ""
                raise InputError(
                    f"{fault} from those of the run that wrote {checkpoint}: its figures would be wrong. Use the flags "
                    f"of {run.config_file}{split}, or start a new run."
                )
    logger.info("Resuming from %s.", checkpoint)
