"""Going on from a checkpoint: which one, and whether it belongs to this very run."""

from __future__ import annotations

import logging
from pathlib import Path

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from data_utils.errors import InputError
from evaluation.run_folder import RunFolder
from modeling import SentimentClassifier
from modeling.state import check_weights_fit
from training.arguments import LATEST
from training.data import TrainingData

logger = logging.getLogger(__name__)
WRITTEN_LAST = "trainer_state.json"  # a checkpoint without it was cut off while it was written
FINGERPRINTS = {
    "data_fingerprint": "The data, or how they are read, differ",
    "split_sha256": "The split differs (--seed, --val_ratio or --split_file)",
    "tokens_sha256": "The tokenizer or --max_length differs",
}


def find_checkpoint(run: RunFolder, wanted: str | None) -> str | None:
    """The checkpoint folder to go on from; None starts anew.

    Raises:
        InputError: `wanted` is no whole checkpoint.
    """
    if wanted is None:
        return None
    if wanted != LATEST:
        if not Path(wanted, WRITTEN_LAST).is_file():
            raise InputError(
                f"Got --resume_from_checkpoint {wanted!r}, which is no folder with a {WRITTEN_LAST}; name a "
                f"checkpoint-N folder, or {LATEST}."
            )
        return wanted
    checkpoints = sorted(
        run.checkpoints_dir.glob(f"{PREFIX_CHECKPOINT_DIR}-*[0-9]"), key=lambda path: int(path.name.rpartition("-")[2])
    )
    while checkpoints and not (checkpoints[-1] / WRITTEN_LAST).is_file():
        logger.warning("%s was cut off while it was written and is passed over.", checkpoints.pop())
    if not checkpoints:
        logger.warning("No checkpoint in %s yet: starting from the beginning.", run.checkpoints_dir)
        return None
    return str(checkpoints[-1])


def check_continues(checkpoint: str, model: SentimentClassifier, prepared: TrainingData) -> None:
    """Refuse to go on with another model, or with other rows than those the checkpoint was trained on.

    A new split would put rows that were trained on into the validation part, and its figures would be too good.

    Raises:
        InputError: something differs; it says what.
    """
    weights = Path(checkpoint, "model.safetensors")
    if weights.is_file():
        check_weights_fit(model, weights)
    run = RunFolder(Path(checkpoint).resolve().parent.parent)
    if run.is_run():
        earlier, now = run.load_arguments()["environment"], prepared.fingerprints()
        for name, fault in FINGERPRINTS.items():
            if earlier.get(name) != now[name]:
                raise InputError(
                    f"{fault} from those of the run that wrote {checkpoint}: its figures would be wrong. Use the flags "
                    f"of {run.config_file} and --split_file {run.split_file}, or start a new run."
                )
    logger.info("Resuming from %s.", checkpoint)
