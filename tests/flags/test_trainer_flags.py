"""Every flag of the installed transformers.Trainer does what it says, or is refused in one sentence at the start."""

import dataclasses
import json

import pytest
import torch
import yaml
from conftest import tiny_flags
from transformers import Trainer, TrainingArguments
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from modeling.errors import InputError
from training.experiments.training import assemble
from training.flags.arguments import CHECKPOINTING
from training.flags.parsing import check_command_line, parse_arguments
from training.flags.recipe import all_flags
from training.flags.rules import NEEDS, NEVER, NUMBERS, WORDS


def read_pairs(text):
    return dict(word.split("=", 1) for word in text.split())


FIELDS = {*(field.name for field in dataclasses.fields(TrainingArguments)), *CHECKPOINTING.values()}
# Refused before the heavy imports, each with a value of its own.
REFUSED = read_pairs(
    "auto_find_batch_size=true average_tokens_across_devices=false batch_eval_metrics=true "
    "dataloader_in_order=false debug=underflow_overflow do_eval=true do_predict=true do_train=false "
    "enable_jit_checkpoint=true eval_do_concat_batches=false fsdp=full_shard fsdp_config={} hub_always_push=true "
    "hub_model_id=me/model hub_private_repo=true hub_revision=main hub_strategy=end hub_token=secret "
    "ignore_data_skip=true include_for_metrics=inputs label_names=labels length_column_name=width "
    'liger_kernel_config={"rope":true} optim_target_modules=all-linear parallelism_config=tp '
    "prediction_loss_only=true project=mine push_to_hub=true logging_nan_inf_filter=true "
    "remove_unused_columns=true run_name=first trackio_bucket_id=b trackio_space_id=s trackio_static_space_id=s "
    "use_cache=true use_liger_kernel=true "
    "ddp_backend=gloo deepspeed=nowhere.json local_rank=3 report_to=tensorbord"
)
# What is said of values that no training can have, before anything is imported.
ABSURD = {
    "--num_train_epochs nan": "at most 1,000,000",
    "--num_train_epochs inf": "at most 1,000,000",
    "--num_train_epochs 0": "more than 0",
    "--max_steps 0": "it takes 1 to",
    "--max_steps -2": "it takes 1 to 1,000,000,000",
    "--max_steps 999999999999999999999999": "it takes 1 to",
    "--logging_steps 1e-400": "between 0 and 1",
    "--logging_steps 1.5": "whole steps",
    "--eval_steps 5": "without --eval_strategy steps",
    "--save_steps 5": "without --save_strategy steps",
    "--eval_strategy no --eval_delay 1": "without --eval_strategy",
    "--eval_strategy no --early_stopping_patience 2": "needs evaluations",
    "--folds 1000000000": "at most 10,000",
    "--folds 3 --seeds 1000000000": "3,000,000,000 trainings",
    "--seeds 2": "only with --folds",
    "--folds 2 --seeds 2 --seed 4294967295": "also for the last of --seeds",
    "--dataloader_num_workers 1000000": "at most 512",
    "--dataloader_persistent_workers": "without --dataloader_num_workers",
    "--dataloader_num_workers 1 --dataloader_prefetch_factor 0": "more than 0",
    "--activation_checkpointing_kwargs {}": "without --activation_checkpointing",
    "--warmup_steps nan": "a share of all steps",
    "--adam_beta1 1": "less than 1",
    "--max_grad_norm -1": "it takes 0 or more",
    "--logit_adjustment nan": "it takes 0 or more",
    "--modality_dropout 0.7": "0 to 0.5",
    "--save_total_limit 0": "a large number keeps all",
    "--data_seed -1": "it takes 0 to",
    "--report_to tensorboard tensorbord": "Did you mean tensorboard?",
    "--eval_strategy sometimes": "allowed are no, steps, epoch",
    "--class_weights=": "Got --class_weights ''; allowed are none",
    "--log_level=": "Got --log_level ''; allowed are detail",
    "--metric_for_best_model acuracy": "Did you mean accuracy?",
    "--include_num_input_tokens_seen some": "allowed are all, non_padding",
    "--save_strategy best --eval_strategy no": "without evaluations",
    "--save_strategy steps --save_steps 1": "--eval_strategy steps --eval_steps 1",
    "--lr_scheduler_type greedy --eval_strategy no": "goes by evaluations",
    "--torch_compile_backend gcc": "allowed are inductor",
    "--torch_compile_backend eager --torch_compile_mode default": "a mode is for inductor",
    "--torch_compile off --torch_compile_mode default": "which turns it on",
    "--profile --dry_run": "--profile and --dry_run",
    "--neftune_noise_alpha 5 --freeze both": "embeddings of words",
    "--include_num_input_tokens_seen all --fusion image_only": "reads no texts",
}
# What only the libraries can judge.
MISFITS = {
    "--report_to comet_ml": "install its package",
    "--report_to none tensorboard": "none stands alone",
    "--optim lion": "Got --optim 'lion'; allowed are adamw_torch",
    "--optim_args momentum=0.5": "finds nothing to use",
    "--optim sgd --adam_beta1 0.5": "finds nothing to use",
    "--lr_scheduler_kwargs {": "it takes a JSON object",
    '--lr_scheduler_kwargs {"num_cycle":1}': "takes JSON with num_cycles.",
    "--lr_scheduler_type cosine_with_min_lr": "takes JSON with num_cycles, min_lr, min_lr_rate",
    '--lr_scheduler_type greedy --lr_scheduler_kwargs {"factor":2}': "Factor should be < 1.0",
    "--lr_scheduler_type warmup_stable_decay": "takes JSON with num_decay_steps, num_stable_steps",
    "--optim galore_adamw": "--optim galore_adamw, which lacks the two learning rates",
    "--optim sgd --optim_args momentum=much": "--optim sgd and --optim_args momentum=much",
    "--accelerator_config nowhere.json": "the path of a file",
    '--accelerator_config {"split_batch":1}': "Did you mean split_batches?",
    '--accelerator_config {"split_batches":true}': "split_batches: True, where False belongs; others change the rows",
    '--accelerator_config {"gradient_accumulation_kwargs":{"num_steps":2}}': "--gradient_accumulation_steps",
    '--activation_checkpointing --activation_checkpointing_kwargs {"every_n_layers":0}': "from 1 to",
    '--activation_checkpointing --activation_checkpointing_kwargs {"layers":2}': "allowed are every_n_layers",
    '--activation_checkpointing --activation_checkpointing_kwargs {"use_reentrant":true}': "frozen layers",
    "--torch_compile_mode fast": "allowed are default",
}
# Which arrive in the arguments as YAML reads them; Trainer makes the rest of them.
TAKEN = read_pairs(
    'activation_checkpointing_kwargs={"every_n_layers":2} bf16_full_eval=true bf16=true ddp_broadcast_buffers=true '
    "ddp_bucket_cap_mb=5 ddp_find_unused_parameters=true ddp_static_graph=true ddp_timeout=60 "
    "dataloader_pin_memory=false fp16=false fp16_full_eval=true full_determinism=true gradient_checkpointing=true "
    'gradient_checkpointing_kwargs={"every_n_layers":2} greater_is_better=false learning_rate=0.5 '
    'lr_scheduler_kwargs={"num_cycles":0.4} '
    "load_best_model_at_end=false log_level=error log_level_replica=error log_on_each_node=false "
    "metric_for_best_model=eval_loss output_dir=elsewhere restore_callback_states_from_checkpoint=false "
    "resume_from_checkpoint=latest save_on_each_node=true save_only_model=true seed=7 skip_memory_metrics=false "
    "tf32=false torch_compile_mode=reduce-overhead torch_empty_cache_steps=3 use_cpu=true"
)
# Settings of the optimizer that a flag decides.
OPTIMIZER = {
    "adam_beta1": ("0.5", "betas", (0.5, 0.999)),
    "adam_beta2": ("0.5", "betas", (0.9, 0.5)),
    "adam_epsilon": ("0.5", "eps", 0.5),
    "optim": ("sgd", "lr", 1e-5),
    "optim_args": ("momentum=0.5", "momentum", 0.5),
}
# What the runs below look at.
IN_RUNS = (
    *("per_device_train_batch_size", "gradient_accumulation_steps", "num_train_epochs", "max_steps", "weight_decay"),
    *("lr_scheduler_type", "warmup_steps", "max_grad_norm", "label_smoothing_factor"),
    *("logging_strategy", "logging_steps", "logging_first_step", "include_num_input_tokens_seen", "disable_tqdm"),
    *("eval_strategy", "eval_steps", "eval_delay", "per_device_eval_batch_size", "eval_on_start"),
    *("eval_use_gather_object", "eval_accumulation_steps", "save_strategy", "save_steps", "save_total_limit"),
    *("dataloader_drop_last", "dataloader_num_workers", "dataloader_persistent_workers", "dataloader_prefetch_factor"),
    *("dataloader_multiprocessing_context", "train_sampling_strategy", "data_seed"),
    *("neftune_noise_alpha", "activation_checkpointing", "torch_compile", "torch_compile_backend"),
)


def parse(*words):
    common = ["--data_dir", "data", "--report_to", "none"]
    return parse_arguments([*common, *words])[2]


def history(run):
    """What was logged, up to the last checkpoint."""
    states = run.glob("checkpoints/checkpoint-*/trainer_state.json")
    return json.loads(max(states, key=lambda path: path.stat().st_mtime).read_text())["log_history"]


def test_tables_are_of_the_flags_and_words_that_the_installed_trainer_has():
    assert {name for table in (WORDS, NUMBERS, NEVER, NEEDS) for names in table for name in names.split()} <= {
        *all_flags()
    }
    tables = [REFUSED, TAKEN, OPTIMIZER, dict.fromkeys((*IN_RUNS, "accelerator_config"))]
    assert sorted(name for table in tables for name in table) == sorted(FIELDS)
    assert set(WORDS["report_to"]) == {*INTEGRATION_TO_CALLBACK, "none", "all"}
    fields = {field.name: field for field in dataclasses.fields(TrainingArguments)}
    listed = {"eval_strategy": IntervalStrategy, "logging_strategy": IntervalStrategy, "save_strategy": SaveStrategy}
    ours = {"class_weights", "metric_for_best_model", "torch_compile_backend", "report_to"}
    for flags in WORDS.keys() - ours - {"include_num_input_tokens_seen"}:
        for flag in flags.split():
            words = [each.value for each in listed.get(flag, ())] or fields[flag].metadata["choices"]
            assert set(WORDS[flags]) == set(words), flag


@pytest.mark.parametrize("flag", REFUSED)
def test_flag_without_use_is_refused_before_anything_is_imported(flag):
    none = [] if flag == "report_to" else ["--report_to", "none"]
    with pytest.raises(InputError, match=f"^Got --{flag}") as refused:
        check_command_line(["--data_dir", "data", *none, f"--{flag}", REFUSED[flag]])
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("words", [*ABSURD, *MISFITS])
def test_values_that_do_not_fit_are_refused_with_what_does(words):
    with pytest.raises(InputError) as refused:
        (check_command_line if words in ABSURD else parse_arguments)(["--data_dir", "data", *words.split()])
    assert (ABSURD | MISFITS)[words] in str(refused.value)


def test_flags_arrive_in_the_arguments():
    apart = {"gradient_checkpointing_kwargs", "gradient_checkpointing", "fp16_full_eval"}
    for flags in (TAKEN.keys() - apart, apart):  # of which some exclude each other, or are older names
        args = parse("--activation_checkpointing", *(f"--{flag}={TAKEN[flag]}" for flag in sorted(flags)))
        assert {flag: getattr(args, flag) for flag in flags} == {flag: yaml.safe_load(TAKEN[flag]) for flag in flags}


def test_arguments_are_frozen_once_they_are_parsed():
    accumulation = {"sync_each_batch": True}
    config = json.dumps({"gradient_accumulation_kwargs": accumulation})
    model, data, args = parse_arguments(["--data_dir", "data", "--report_to", "none", "--accelerator_config", config])
    for group, name in ((model, "fusion"), (data, "labels")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(group, name, "other")
    for name in ("output_dir", "bf16", "mixed_precision", "eval_strategy", "ddp_find_unused_parameters", "any"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(args, name, "other")
    other = args.replace(seed=7, output_dir="elsewhere")
    assert (args.seed, args.output_dir) == (42, None)
    assert (other.seed, other.output_dir, other.learning_rate) == (7, "elsewhere", args.learning_rate)
    with pytest.raises(dataclasses.FrozenInstanceError):
        other.seed = 8
    other.accelerator_config.gradient_accumulation_kwargs["num_steps"] = 1  # as Trainer notes it
    assert args.accelerator_config.gradient_accumulation_kwargs == accumulation


@pytest.mark.parametrize("flag", OPTIMIZER)
def test_flag_decides_the_optimizers_settings(flag):
    value, setting, expected = OPTIMIZER[flag]
    args = parse(f"--{flag}", value, *(["--optim", "sgd"] if flag == "optim_args" else []))
    kind, settings = Trainer.get_optimizer_cls_and_kwargs(args)
    assert settings[setting] == expected
    assert (kind is torch.optim.SGD) == flag.startswith("optim")


def test_trackers_are_listed_in_words_or_with_commas_each_once():
    assert parse("--report_to", "tensorboard,tensorboard", "tensorboard").report_to == ["tensorboard"]
    assert "tensorboard" in parse("--report_to", "all").report_to
    assert parse("--report_to", "none").report_to == []


def test_flags_of_rhythm_loading_and_logging_do_what_they_say(run_train):
    run, _ = run_train(
        *("--fusion", "early", "--per_device_train_batch_size", "4", "--gradient_accumulation_steps", "2"),
        *("--max_steps", "4"),
        *("--logging_strategy", "steps", "--logging_steps", "2", "--logging_first_step", "--disable_tqdm", "true"),
        *("--eval_strategy", "steps", "--eval_steps", "1", "--eval_delay", "3", "--eval_on_start"),
        *("--per_device_eval_batch_size", "1", "--eval_accumulation_steps", "1", "--eval_use_gather_object"),
        *("--save_strategy", "steps", "--save_steps", "2", "--save_total_limit", "1"),
        *("--dataloader_num_workers", "1", "--dataloader_persistent_workers", "--dataloader_prefetch_factor", "3"),
        *("--dataloader_multiprocessing_context", "fork", "--train_sampling_strategy", "sequential"),
        *("--include_num_input_tokens_seen", "all"),
        *("--lr_scheduler_type", "constant_with_warmup", "--warmup_steps", "4", "--learning_rate", "0.004"),
    )
    entries = history(run)
    assert [entry["step"] for entry in entries if "loss" in entry] == [1, 2, 4]
    assert [entry["step"] for entry in entries if "eval_loss" in entry] == [0, 3, 4]
    assert [entry["learning_rate"] for entry in entries if "loss" in entry] == pytest.approx([0, 0.001, 0.003])
    seen = [entry["num_input_tokens_seen"] for entry in entries if "loss" in entry]
    assert 0 < 2 * seen[0] <= 2 * seen[1] < 2 * seen[2] <= 4 * 8 * 16
    assert entries[-1]["eval_samples_per_second"] > 0
    assert [path.name for path in run.glob("checkpoints/checkpoint-*")] in (["checkpoint-4"], ["checkpoint-3"])
    assert json.loads((run / "metrics.json").read_text())["training"]["steps"] == 4


@pytest.fixture
def train_losses(sample, tmp_path):
    """Train a tiny model for two updates and give their losses; nothing is evaluated or written."""

    def run(*words):
        flags = ["--fusion", "early", "--max_steps", "2", "--logging_steps", "1", "--learning_rate", "0.01"]
        flags += ["--warmup_steps", "0", "--modality_dropout", "0", "--fusion_dropout", "0", "--eval_strategy", "no"]
        flags += ["--save_strategy", "no", "--load_best_model_at_end", "false"]
        parsed = parse_arguments([*tiny_flags(sample, tmp_path), *flags, *words])
        before = parsed.training.to_plain_dict()
        trainer, _, _ = assemble(parsed)
        trainer.train()
        assert parsed.training.to_plain_dict() == before, "a training changed the arguments that it was given"
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    return run


def test_flags_of_the_update_change_the_losses_and_others_do_not(train_losses):
    reference = train_losses()
    for flag, value in {
        "neftune_noise_alpha": "50",
        "weight_decay": "50",
        "max_grad_norm": "1e-6",
        "label_smoothing_factor": "0.5",
        "data_seed": "7",
        "train_sampling_strategy": "sequential",
    }.items():
        assert train_losses(f"--{flag}", value) != pytest.approx(reference, rel=1e-6), flag
    same = ["--activation_checkpointing", "--torch_compile_backend", "eager", "--optim", "adamw_torch"]
    same += ["--accelerator_config", '{"non_blocking": true}', "--neftune_noise_alpha", "0"]
    assert train_losses(*same) == pytest.approx(reference, rel=1e-4)


def test_dataloader_drop_last_leaves_out_what_fills_no_batch(train_losses):
    one_epoch = ["--max_steps", "-1", "--num_train_epochs", "1", "--per_device_train_batch_size", "40"]
    assert len(train_losses(*one_epoch)) == 2  # of 54 rows
    assert len(train_losses(*one_epoch, "--dataloader_drop_last")) == 1
