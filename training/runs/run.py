"""What a training run writes into its folder, before and after."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.trainer_utils import PredictionOutput

from data_utils.console.tables import format_table
from data_utils.system.files import copy_mode, remove
from data_utils.system.refusals import tell_refusals
from evaluation.scores.scoring import format_metrics, score_answers
from evaluation.scores.tasks import TASKS
from evaluation.scores.thresholds import answer_rows, choose_thresholds
from modeling.batch import batch_loss
from modeling.choices import DEFAULT_THRESHOLD
from modeling.classifier import SentimentClassifier
from modeling.configuration import SentimentConfig
from modeling.pipeline import save_alone
from modeling.processor import SentimentProcessor
from run_files.model_card import write_card
from run_files.output import write_json
from run_files.predictions_csv import write_bad_cases, write_predictions_csv
from run_files.run_folder import RunFolder
from training.build.adapters import find_adapters, merge_adapters
from training.build.parameters import parameter_table
from training.data.data import TrainingData
from training.data.stream_data import StreamedData
from training.engine.trainer import SentimentTrainer, to_probabilities
from training.flags.arguments import SentimentTrainingArguments
from training.flags.parsing import Flags
from training.launch.console import GO_ON
from training.launch.signals import REQUEUE_CODE, Interrupted
from training.launch.trackers import final_figures
from training.runs.record import describe_run

logger = logging.getLogger(__name__)
PART_TITLES = {"val": "validation", "test": "held-out rows"}


@contextmanager
def note_interruption(run: RunFolder, args: SentimentTrainingArguments) -> Iterator[None]:
    """Leave interrupted.json while a stopped job waits to be resumed: launchers don't pass on its exit code."""
    run.interrupted_file.unlink(missing_ok=True)
    try:
        yield
    except Interrupted as stop:
        if args.should_save:
            write_json(run.interrupted_file, {"reason": str(stop), "exit_code": REQUEUE_CODE})
        raise


def write_start(
    run: RunFolder, flags: Flags, *, trainer: SentimentTrainer, prepared: TrainingData | StreamedData
) -> None:
    """Write and show what is known before the first step: the trainer's arguments, split, quarantine, parameters."""
    if not trainer.args.should_save:
        return
    data = flags.data
    sections = describe_run(run, flags._replace(training=trainer.args), prepared.fingerprints())
    sections["data"]["text_encoding"] = prepared.text_encoding  # which a prediction's own texts may be too few to tell
    # A path of its own, which another working folder wouldn't find; a table has none, whatever lies there.
    if data.data is None and data.list_path() == Path(data.train_file):
        sections["data"]["train_file"] = str(data.list_path().resolve())
    run.save_arguments(sections)
    prepared.save(run)
    prepared.quarantine.tell(run.quarantine_file)
    table = parameter_table(trainer.model)
    millions = (f"{count / 1e6:.2f}" for count in table.values())
    logger.info("%s", format_table([["parameters", *table], ["millions", *millions]]))


def write_results(
    run: RunFolder,
    trainer: SentimentTrainer,
    prepared: TrainingData | StreamedData,
    training_metrics: Mapping[str, float],
    *,
    resumed: bool,
) -> None:
    """Save the best model and the figures; called by every rank, because sharded weights are gathered from all."""
    parts = {name: rows for name, rows in (("val", prepared.val), ("test", prepared.test)) if rows is not None}
    found = {name: trainer.predict(rows, metric_key_prefix="eval") for name, rows in parts.items()}
    if "val" in found and trainer.config.task == "multi_label":
        labels, values = found["val"].label_ids[0], to_probabilities(trainer.config, found["val"].predictions)
        trainer.config.thresholds = choose_thresholds(values, labels).tolist()
    save_model(run, trainer, prepared)
    if not trainer.is_world_process_zero():
        return
    scores = {name: _write_part(run, trainer, name, parts[name]["guid"], found[name]) for name in found}
    metrics: dict[str, Any] = {
        **({"val": None} | scores),
        "best": describe_best(trainer) if trainer.args.load_best_model_at_end else None,
        "parameters": dict(parameter_table(trainer.accelerator.unwrap_model(trainer.model))),
        "training": {
            "num_train_rows": prepared.num_train_rows,
            "label_counts": prepared.count_labels(trainer.labels),
            "num_val_rows": 0 if prepared.val is None else len(prepared.val),
            "num_test_rows": 0 if prepared.test is None else len(prepared.test),
            "steps": trainer.state.global_step,
            "skipped_steps": count_skipped(trainer),
            "epochs": trainer.state.epoch,
            # Of this launch alone are the seconds and the rate.
            "resumed_at_step": trainer.first_step if resumed else None,
            "seconds": training_metrics["train_runtime"],
            "samples_per_second": training_metrics["train_samples_per_second"],
            "loss": mean_loss(trainer.state.log_history),
        },
    }
    write_json(run.history_file, list(tidy_history(trainer.state.log_history)))
    write_json(run.metrics_file, metrics)
    write_own_card(run, trainer.config)
    if figures := final_figures(metrics):
        trainer.log(figures)
    logger.info("The run is in %s; evaluate it with: python evaluate.py %s", run.path, run.path)


def write_own_card(run: RunFolder, config: SentimentConfig) -> None:
    """The card of the run's model, by its metrics.json."""
    metrics = run.load_metrics(dict[str, Any])
    parts = {title: metrics[name] for name, title in PART_TITLES.items() if metrics.get(name) is not None}
    write_card(run, run.model_dir, [config], parts, TASKS[config.task].scores)


def save_model(run: RunFolder, trainer: SentimentTrainer, prepared: TrainingData | StreamedData) -> None:
    """Write model/ whole or not at all: weights with adapters merged, config, and what it takes to stand alone."""
    partial, model = run.path / ".model.partial", trainer.accelerator.unwrap_model(trainer.model)
    if trainer.args.should_save:
        remove(partial)  # what a killed job left may hold anything
    trainer.accelerator.wait_for_everyone()
    with tell_refusals(run.model_dir, need=4 * parameter_table(model)["total"], again=GO_ON):
        try:
            trainer.save_model(str(partial))
            if trainer.args.should_save:
                (partial / "training_args.bin").unlink(missing_ok=True)  # a pickle; config.yaml says it all
                adapters = find_adapters(model)
                if adapters:
                    merge_adapters(partial, model)
                most = run.load_arguments()["data"]["max_image_pixels"]
                processor = SentimentProcessor.from_config(model.config, prepared.tokenizer, most)
                save_alone(partial, SentimentClassifier, processor)
                for config in (partial / "config.json", *partial.glob("adapter/*/adapter_config.json")):
                    copy_mode(config)
        except BaseException:
            if trainer.args.should_save:
                remove(partial)
            raise
        if trainer.args.should_save:
            remove(run.model_dir)
            remove(run.adapter_dir)
            if adapters:
                (partial / run.adapter_dir.name).rename(run.adapter_dir)
            partial.rename(run.model_dir)


def describe_best(trainer: SentimentTrainer) -> dict[str, Any] | None:
    """Metric, value, step and epoch of the best evaluation; None without one."""
    state = trainer.state
    if state.best_metric is None:
        return None
    epochs = [entry["epoch"] for entry in state.log_history if entry["step"] == state.best_global_step]
    return {
        "metric": trainer.args.metric_for_best_model,
        "value": state.best_metric,
        "step": state.best_global_step,
        "epoch": epochs[0] if epochs else None,
    }


def count_skipped(trainer: SentimentTrainer) -> int | None:
    """Updates that float16's scaler left out after an overflow, those before a resume too; None where nobody counts.

    Those that Adam's kind made it counts by itself; the schedule goes on with a fused optimizer's that were left out.
    """
    if not trainer.args.fp16:
        return 0
    if trainer.is_deepspeed_enabled:
        return trainer.deepspeed.skipped_steps
    made = [int(state["step"]) for state in trainer.optimizer.state.values() if "step" in state]
    return trainer.state.global_step - max(made) if made and not trainer.optimizer_is_new else None


def mean_loss(log_history: Sequence[Mapping[str, Any]]) -> float | None:
    """The mean training loss over all updates, of each launch that had a part in them."""
    total, last = 0.0, 0
    for entry in log_history:
        if "loss" in entry:
            total += entry["loss"] * (entry["step"] - last)
            last = entry["step"]
    return total / last if last else None


def tidy_history(log_history: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, float]]:
    """What was logged, without what is no finite number."""
    for entry in log_history:
        yield {name: value for name, value in entry.items() if isinstance(value, int | float) and np.isfinite(value)}


def _write_part(
    run: RunFolder, trainer: SentimentTrainer, part: str, guids: Sequence[str], prediction: PredictionOutput
) -> dict[str, Any]:
    """Write and show what is to be known of the answers for a part; `part` is val or test."""
    labels, row_index = prediction.label_ids
    order = row_index.argsort()
    config, names, labels = trainer.config, trainer.labels, labels[order]
    probabilities = to_probabilities(config, prediction.predictions)[order]
    # The thresholds were chosen on validation rows, which are judged by those of the others among them.
    thresholds = None if part == "val" else np.array(config.thresholds or DEFAULT_THRESHOLD)
    answers = answer_rows(probabilities, labels, thresholds)
    write_predictions_csv(run.predictions_files[part], guids, labels, probabilities, names, answers)
    if part == "val":
        write_bad_cases(run.bad_cases_file, guids, labels, answers, names)
    metrics = score_answers(probabilities, labels, answers, names)
    logger.info("%s", format_metrics(metrics, title=PART_TITLES[part]))
    # Trainer's own mean counts the rows that fill up the last batch of several ranks.
    logits = torch.from_numpy(prediction.predictions[order]).double()
    return metrics | {"loss": batch_loss(config, logits, torch.from_numpy(labels)).item()}
