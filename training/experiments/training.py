"""One training, from its flags to its run folder.

The way of the data: files -> rows -> decoded texts and uint8 pictures -> Arrow cache -> split by group -> tokens ->
batches -> towers -> fusion head -> loss.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict

from transformers import EarlyStoppingCallback, ProgressCallback, set_seed
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from transformers.trainer_utils import enable_full_determinism

from data_utils.prepare.collator import PairCollator
from data_utils.sources.arguments import DataArguments
from data_utils.system.refusals import tell_refusals
from modeling.classifier import SentimentClassifier
from training.build.build import build_model
from training.build.parameters import find_idle
from training.build.plan import ModelPlan, check_sources, plan_model
from training.data.data import TrainingData, prepare_data
from training.data.features import use_features
from training.data.stream_data import StreamedData, prepare_stream
from training.engine.callbacks import LossProgressCallback
from training.engine.profiling import ProfileCallback
from training.engine.stream_trainer import StreamTrainer
from training.engine.trainer import SentimentTrainer
from training.engine.updates import check_updates, warn_of_idle_updates
from training.experiments.dry_run import run_dry
from training.flags.arguments import SentimentTrainingArguments
from training.flags.model import ModelArguments
from training.launch import signals
from training.launch.checks import check_same_everywhere
from training.launch.console import GO_ON
from training.launch.ranks import launched_world_size
from training.runs.claim import lock_run, make_room, make_run_folder, settle_files
from training.runs.resume import check_continues, find_checkpoint
from training.runs.run import note_interruption, write_results, write_start


def train(model_args: ModelArguments, data_args: DataArguments, args: SentimentTrainingArguments) -> None:
    """Check the run folder, then train in it while no other job may."""
    if data_args.max_train_samples is not None:  # there may be fewer, which is known once the list is read
        check_updates(data_args.max_train_samples, args)
    if args.dry_run:
        with tempfile.TemporaryDirectory(prefix="dry-run-") as folder:  # nothing but the data cache stays
            check_sources(model_args)
            run_dry(*assemble(model_args, data_args, args.replace(output_dir=folder)))
        return
    run = make_run_folder(model_args, args)
    args = settle_files(run, args).beside(model=asdict(model_args), data=asdict(data_args))
    with lock_run(run):
        checkpoint, args = find_checkpoint(run, args)
        trainer, prepared, _ = assemble(model_args, data_args, args)
        if checkpoint is not None:
            check_continues(checkpoint, trainer.model, prepared)
        make_room(run, args, checkpoint=checkpoint)
        write_start(run, model=model_args, data=data_args, trainer=trainer, prepared=prepared)
        if args.profile:
            trainer.add_callback(ProfileCallback(run.path / "profile"))
        with signals.hold(), note_interruption(run, args), tell_refusals(run.path, again=GO_ON):
            result = trainer.train(resume_from_checkpoint=checkpoint)
        write_results(run, trainer, prepared, result.metrics, resumed=checkpoint is not None)
        trainer.end_trackers()


def assemble(
    model_args: ModelArguments, data_args: DataArguments, args: SentimentTrainingArguments
) -> tuple[SentimentTrainer, TrainingData | StreamedData, ModelPlan]:
    """Prepare the data, build the model, and put both into a trainer."""
    unset_hf_deepspeed_config()  # ZeRO-3 would shard the towers while they are read; the trainer shards the whole
    plan = plan_model(model_args, data_args)
    if data_args.streaming:
        prepared = prepare_stream(data_args, plan, args, model_args)
    else:
        prepared = prepare_data(data_args, plan, model_args, seed=args.seed)
        check_updates(prepared.num_train_rows, args)
        warn_of_idle_updates(prepared.num_train_rows, args)
    check_same_everywhere(prepared.fingerprints())
    if prepared.val is None:
        args = args.without_evaluation()

    # The head's initial weights. Kernels are made deterministic before any runs: frozen towers do ahead of Trainer.
    (enable_full_determinism if args.full_determinism else set_seed)(args.seed)
    model = build_model(
        plan,
        model_args,
        tokenizer=prepared.tokenizer,
        labels=data_args.labels,
        text_cleaning=data_args.text_cleaning,
    )
    if launched_world_size() > 1 and args.ddp_find_unused_parameters is None:
        args = args.replace(ddp_find_unused_parameters=bool(find_idle(model)))
    args = args.with_precision_for(model)
    collator = PairCollator(prepared.tokenizer.pad_token_id, plan.picture.image_size, pin=args.dataloader_pin_memory)
    if data_args.streaming:
        return build_trainer(StreamTrainer, args, model, prepared, collator), prepared, plan
    prepared, collator = use_features(model, prepared, collator, model_args=model_args, data_args=data_args, args=args)
    return build_trainer(SentimentTrainer, args, model, prepared, collator), prepared, plan


def build_trainer(
    kind: type[SentimentTrainer],
    args: SentimentTrainingArguments,
    model: SentimentClassifier,
    prepared: TrainingData | StreamedData,
    collator: PairCollator,
) -> SentimentTrainer:
    """A trainer with the callbacks that the flags ask for."""
    trainer = kind(
        model=model,
        args=args,
        train_dataset=prepared.train,
        eval_dataset=prepared.val,
        collator=collator,
        callbacks=[EarlyStoppingCallback(args.early_stopping_patience)] if args.early_stopping_patience else [],
    )
    if not args.disable_tqdm:
        trainer.remove_callback(ProgressCallback)
        trainer.add_callback(LossProgressCallback())
    return trainer
