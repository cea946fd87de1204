"""One training, from its flags to its run folder.

The way of the data: files -> rows -> decoded texts and uint8 pictures -> Arrow cache -> split by group -> tokens ->
batches -> towers -> fusion head -> loss.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from transformers import EarlyStoppingCallback, TrainerCallback, set_seed
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from transformers.trainer import DEFAULT_PROGRESS_CALLBACK
from transformers.trainer_utils import enable_full_determinism

from data_utils.prepare.collator import PairCollator
from data_utils.system.refusals import tell_refusals
from evaluation.report.writing import report_at_end
from modeling.classifier import SentimentClassifier
from modeling.publish import open_repository, publish
from training.build.build import build_model
from training.build.parameters import find_idle
from training.build.plan import ModelPlan, check_sources, plan_model
from training.data.data import TrainingData, prepare_data
from training.data.features import use_features
from training.data.stream_data import StreamedData, prepare_stream
from training.engine.callbacks import LossProgressCallback, ProfileCallback
from training.engine.stream_trainer import StreamTrainer
from training.engine.trainer import SentimentTrainer
from training.engine.updates import check_updates, warn_of_idle_updates
from training.experiments.dry_run import run_dry
from training.flags.arguments import SentimentTrainingArguments
from training.flags.parsing import Flags, settle
from training.launch import signals
from training.launch.checks import check_same_everywhere
from training.launch.console import GO_ON
from training.launch.ranks import is_main_process, launched_world_size
from training.launch.trackers import tracked
from training.runs.claim import lock_run, make_room, make_run_folder, settle_files
from training.runs.resume import check_continues, find_checkpoint
from training.runs.run import note_interruption, write_results, write_start

logger = logging.getLogger(__name__)


def train(flags: Flags, callbacks: Sequence[TrainerCallback] = ()) -> None:
    """Check the run folder, then train in it while no other job may; `callbacks` may end it early."""
    if flags.data.max_train_samples is not None:  # there may be fewer, which is known once the list is read
        check_updates(flags.data.max_train_samples, flags.training)
    model, data, args = flags = settle(flags)
    if args.dry_run:
        with tempfile.TemporaryDirectory(prefix="dry-run-") as folder:  # nothing but the data cache stays
            check_sources(model)
            run_dry(*assemble(Flags(model, data, args.replace(output_dir=folder))))
        return
    run = make_run_folder(flags)
    repository = None
    if args.push_to_hub and is_main_process():
        repository = open_repository(args.hub_model_id, private=args.hub_private_repo, token=args.hub_token)
    args = args.replace(push_to_hub=False)  # by which Trainer would upload checkpoints
    with tracked(run.path, run.path.name), lock_run(run):
        args = settle_files(run, args).beside(model=asdict(model), data=asdict(data))
        checkpoint, args = find_checkpoint(run, args)
        trainer, prepared, _ = assemble(Flags(model, data, args))
        if checkpoint is not None:
            check_continues(checkpoint, trainer.model, prepared)
        make_room(run, args, checkpoint=checkpoint)
        write_start(run, flags, trainer=trainer, prepared=prepared)
        for callback in callbacks:
            trainer.add_callback(callback)
        if args.profile:
            trainer.add_callback(ProfileCallback(run.path / "profile"))
        with signals.hold(), note_interruption(run, args), tell_refusals(run.path, again=GO_ON):
            result = trainer.train(resume_from_checkpoint=checkpoint)
        write_results(run, trainer, prepared, result.metrics, resumed=checkpoint is not None)
        trainer.end_trackers()
        if not args.no_report and args.should_save:
            report_at_end(run.path, data.cache_dir)
    if repository is not None:
        address = publish(run.model_dir, repository, revision=args.hub_revision, token=args.hub_token)
        logger.info("The model is published: %s", address)


def assemble(flags: Flags) -> tuple[SentimentTrainer, TrainingData | StreamedData, ModelPlan]:
    """Prepare the data, build the model, and put both into a trainer with the callbacks that the flags ask for."""
    model_args, data_args, args = flags = settle(flags)
    unset_hf_deepspeed_config()  # ZeRO-3 would shard the towers while they are read; the trainer shards the whole
    plan = plan_model(model_args, data_args)
    prepared: TrainingData | StreamedData
    if data_args.streaming:
        prepared = prepare_stream(data_args, plan, args, model_args)
    else:
        prepared = prepare_data(data_args, plan, model_args, seed=args.seed)
        check_updates(prepared.num_train_rows, args)
        warn_of_idle_updates(prepared.num_train_rows, args)
    check_same_everywhere(prepared.fingerprints())
    if prepared.val is None:
        args = args.without_evaluation()

    model, collator, args = build_inputs(flags._replace(training=args), plan, prepared)
    if isinstance(prepared, TrainingData):
        prepared, collator = use_features(
            model, prepared, collator, model_args=model_args, data_args=data_args, args=args
        )
    trainer = (StreamTrainer if data_args.streaming else SentimentTrainer)(
        model=model,
        args=args,
        train_dataset=prepared.train,
        eval_dataset=prepared.val,
        collator=collator,
        callbacks=[EarlyStoppingCallback(args.early_stopping_patience)] if args.early_stopping_patience else [],
    )
    if not args.disable_tqdm:
        trainer.remove_callback(DEFAULT_PROGRESS_CALLBACK)  # another one in a notebook
        trainer.add_callback(LossProgressCallback())
    return trainer, prepared, plan


def build_inputs(
    flags: Flags, plan: ModelPlan, prepared: TrainingData | StreamedData
) -> tuple[SentimentClassifier, PairCollator, SentimentTrainingArguments]:
    """The model before training, the collator of its rows, and the arguments with its precision."""
    model_args, data_args, args = flags
    # The head's initial weights. Kernels are made deterministic before any runs: frozen towers do ahead of Trainer.
    (enable_full_determinism if args.full_determinism else set_seed)(args.seed)
    model = build_model(
        plan,
        model_args,
        tokenizer=prepared.tokenizer,
        labels=data_args.labels,
        text_cleaning=data_args.text_cleaning,
        task=data_args.task,
    )
    if data_args.task == "regression":
        numbers = np.asarray(prepared.train["label"][:], dtype=np.float64)
        mean, std = float(numbers.mean()), float(numbers.std()) or 1.0
        model.config.label_mean, model.config.label_std = mean, std
        logger.info("The training labels have the mean %.4g and the deviation %.4g, the unit of the loss.", mean, std)
    if launched_world_size() > 1 and args.ddp_find_unused_parameters is None:
        args = args.replace(ddp_find_unused_parameters=bool(find_idle(model)))
    args = args.with_precision_for(model)
    collator = PairCollator(prepared.tokenizer.pad_token_id, plan.picture.image_size, pin=args.dataloader_pin_memory)
    return model, collator, args
