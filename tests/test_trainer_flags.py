"""Every flag of the installed transformers.Trainer does what it says, or is refused in one sentence at the start."""

import dataclasses
import json

import pytest
import torch
from conftest import TINY
from transformers import Trainer, TrainingArguments
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.optimization import get_scheduler
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from modeling.errors import InputError
from training.experiments.training import assemble
from training.flags.arguments import CHECKPOINTING
from training.flags.parsing import check_command_line, parse_arguments
from training.flags.refused import CHOICES, TRACKERS

FIELDS = {*(field.name for field in dataclasses.fields(TrainingArguments)), *CHECKPOINTING.values()}
# Refused before the heavy imports: a value, and words of the sentence.
REFUSED = {
    "auto_find_batch_size": ("true", "lower --per_device_train_batch_size"),
    "average_tokens_across_devices": ("false", "the rows of all devices"),
    "batch_eval_metrics": ("true", "--eval_accumulation_steps"),
    "dataloader_in_order": ("false", "needs the rows in order"),
    "debug": ("underflow_overflow", "stops training by itself"),
    "do_eval": ("true", "--eval_strategy"),
    "do_predict": ("true", "evaluate.py RUN --predict"),
    "do_train": ("false", "train.py trains, always"),
    "enable_jit_checkpoint": ("true", "SIGTERM"),
    "eval_do_concat_batches": ("false", "--eval_accumulation_steps"),
    "fsdp": ("full_shard", "accelerate_configs/fsdp2.yaml"),
    "fsdp_config": ('{"fsdp_version": 2}', "accelerate_configs/fsdp2.yaml"),
    "hub_always_push": ("true", "hf upload"),
    "hub_model_id": ("me/model", "hf upload"),
    "hub_private_repo": ("true", "without --report_to trackio"),
    "hub_revision": ("main", "hf upload"),
    "hub_strategy": ("end", "hf upload"),
    "hub_token": ("secret", "Got --hub_token, which"),
    "ignore_data_skip": ("true", "some rows twice"),
    "include_for_metrics": ("inputs", "answers and labels alone"),
    "label_names": ("labels", "--train_file"),
    "length_column_name": ("width", "no such column"),
    "liger_kernel_config": ('{"rope": true}', "language models"),
    "optim_target_modules": ("all-linear", "two learning rates"),
    "parallelism_config": ("tp", "accelerate_configs/"),
    "prediction_loss_only": ("true", "chosen by its answers"),
    "project": ("mine", "without --report_to trackio"),
    "push_to_hub": ("true", "hf upload"),
    "logging_nan_inf_filter": ("true", "never logged"),
    "remove_unused_columns": ("true", "chosen by the program"),
    "run_name": ("first", "without --report_to with a tracker"),
    "trackio_bucket_id": ("b", "without --report_to trackio"),
    "trackio_space_id": ("s", "without --report_to trackio"),
    "trackio_static_space_id": ("s", "without --report_to trackio"),
    "use_cache": ("true", "--cache_features"),
    "use_liger_kernel": ("true", "language models"),
}
# Refused once Trainer is there: on this launch or machine, or since the value can't be read.
REFUSED_HERE = {
    "accelerator_config": ('{"split_batches": true}', "changes the rows of an update"),
    "ddp_backend": ("gloo", "one process"),
    "deepspeed": ("nowhere.json", "accelerate launch"),
    "local_rank": ("3", "LOCAL_RANK"),
    "report_to": ("tensorbord", "Did you mean tensorboard?"),
}
# What is said of values that no training can have.
ABSURD = {
    "--num_train_epochs 1e308": "at most 1,000,000",
    "--num_train_epochs nan": "at most 1,000,000",
    "--num_train_epochs inf": "at most 1,000,000",
    "--max_steps 0": "it takes 1 to",
    "--max_steps 999999999999999999999999": "it takes 1 to",
    "--logging_steps 1e-400": "between 0 and 1",
    "--logging_steps inf": "between 0 and 1",
    "--logging_steps 1.5": "whole steps",
    "--eval_strategy steps --eval_steps -1": "between 0 and 1",
    "--save_strategy steps --save_steps nan": "between 0 and 1",
    "--eval_steps 5": "without --eval_strategy steps",
    "--save_steps 5": "without --save_strategy steps",
    "--eval_strategy no --eval_delay 1": "without --eval_strategy",
    "--folds 1000000000": "at most 10,000",
    "--folds 3 --seeds 1000000000": "3,000,000,000 trainings",
    "--dataloader_num_workers 1000000": "at most 512",
    "--dataloader_persistent_workers": "without --dataloader_num_workers",
    "--dataloader_prefetch_factor 2": "without --dataloader_num_workers",
    "--dataloader_num_workers 1 --dataloader_prefetch_factor 0": "more than 0",
    "--dataloader_multiprocessing_context fork": "without --dataloader_num_workers",
    "--activation_checkpointing_kwargs {}": "without --activation_checkpointing",
    "--warmup_steps nan": "a share of all steps",
    "--adam_beta1 1": "less than 1",
    "--adam_epsilon -1": "0 or more",
    "--max_grad_norm -1": "0 (gradients stay as they are)",
    "--learning_rate inf": "finite",
    "--eval_accumulation_steps 0": "more than 0",
    "--save_total_limit 0": "a large number keeps all",
    "--data_seed -1": "allowed is 0 to",
    "--ddp_timeout -1": "more than 0",
    "--report_to tensorbord": "Did you mean tensorboard?",
    "--eval_strategy sometimes": "allowed are no, steps, epoch",
    "--neftune_noise_alpha 1e308": "0 (off) to 1,000,000",
    "--dataloader_num_workers 1 --dataloader_prefetch_factor 1000000": "at most 1,000",
    "--torch_compile False --torch_compile_backend eager": "which turns it on",
    "--torch_compile off --torch_compile_mode default": "which turns it on",
    "--neftune_noise_alpha 5 --fusion image_only": "embeddings of words",
    "--neftune_noise_alpha 5 --freeze both": "embeddings of words",
    "--include_num_input_tokens_seen all --fusion image_only": "reads no texts",
}
MISFITS = {
    "--report_to wandb": "install its package",
    "--report_to none tensorboard": "none stands alone",
    "--optim lion": "Got --optim 'lion'; allowed are adamw_torch",
    "--optim_args momentum=0.5": "finds nothing to use",
    "--optim sgd --adam_beta1 0.5": "finds nothing to use",
    "--eval_strategy sometimes": "allowed are no, steps, epoch",
    "--train_sampling_strategy sorted": "group_by_length",
    "--log_level loud": "allowed are detail, debug",
    "--save_strategy best --eval_strategy no": "without evaluations",
    "--save_strategy steps --save_steps 1": "--eval_strategy steps --eval_steps 1",
    "--lr_scheduler_kwargs {": "it takes a JSON object",
    "--accelerator_config nowhere.json": "the path of a file",
    '--accelerator_config {"split_batch":1}': "Did you mean split_batches?",
    '--accelerator_config {"gradient_accumulation_kwargs":{"num_steps":2}}': "--gradient_accumulation_steps",
    '--activation_checkpointing --activation_checkpointing_kwargs {"use_reentrant":true}': "frozen layers",
    '--activation_checkpointing --activation_checkpointing_kwargs {"layers":2}': "allowed are every_n_layers",
    "--torch_compile_backend gcc": "allowed are inductor",
    "--torch_compile_mode fast": "allowed are default",
    "--torch_compile_backend eager --torch_compile_mode default": "a mode is for inductor",
    "--include_num_input_tokens_seen some": "allowed are all, non_padding",
}
# What a word of the command line becomes in the arguments, of which Trainer makes the rest.
TAKEN = {
    "activation_checkpointing_kwargs": ('{"every_n_layers": 2}', {"every_n_layers": 2}),
    "bf16_full_eval": ("true", True),
    "bf16": ("true", True),
    "ddp_broadcast_buffers": ("true", True),
    "ddp_bucket_cap_mb": ("5", 5),
    "ddp_find_unused_parameters": ("true", True),
    "ddp_static_graph": ("true", True),
    "ddp_timeout": ("60", 60),
    "dataloader_pin_memory": ("false", False),
    "fp16": ("false", False),
    "fp16_full_eval": ("true", True),
    "full_determinism": ("true", True),
    "gradient_checkpointing": ("true", True),
    "gradient_checkpointing_kwargs": ('{"every_n_layers": 2}', {"every_n_layers": 2}),
    "greater_is_better": ("false", False),
    "learning_rate": ("0.5", 0.5),
    "load_best_model_at_end": ("false", False),
    "log_level": ("error", "error"),
    "log_level_replica": ("error", "error"),
    "log_on_each_node": ("false", False),
    "metric_for_best_model": ("eval_loss", "eval_loss"),
    "output_dir": ("elsewhere", "elsewhere"),
    "restore_callback_states_from_checkpoint": ("false", False),
    "resume_from_checkpoint": ("latest", "latest"),
    "save_on_each_node": ("true", True),
    "save_only_model": ("true", True),
    "seed": ("7", 7),
    "skip_memory_metrics": ("false", False),
    "tf32": ("false", False),
    "torch_compile_mode": ("reduce-overhead", "reduce-overhead"),
    "torch_empty_cache_steps": ("3", 3),
    "use_cpu": ("true", True),
}
# Beside which of them Trainer takes another flag.
BESIDE = {
    "activation_checkpointing_kwargs": ["--activation_checkpointing"],
    "gradient_checkpointing_kwargs": ["--gradient_checkpointing"],
}
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
    *("lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "max_grad_norm", "label_smoothing_factor"),
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


def losses(run):
    return [entry["loss"] for entry in history(run) if "loss" in entry]


def test_words_of_the_tables_are_those_of_the_installed_trainer():
    assert set(TRACKERS) == {*INTEGRATION_TO_CALLBACK, "none", "all"}
    fields = {field.name: field for field in dataclasses.fields(TrainingArguments)}
    enumerations = {
        "eval_strategy": IntervalStrategy,
        "logging_strategy": IntervalStrategy,
        "save_strategy": SaveStrategy,
    }
    for flag in CHOICES.keys() - {"class_weights", "report_to"}:
        words = [each.value for each in enumerations.get(flag, ())] or fields[flag].metadata["choices"]
        assert set(CHOICES[flag]) == set(words), flag


def test_every_flag_of_trainer_is_in_a_table():
    tables = [REFUSED, REFUSED_HERE, TAKEN, OPTIMIZER, dict.fromkeys(IN_RUNS)]
    listed = [name for table in tables for name in table]
    assert sorted(listed) == sorted(FIELDS)


@pytest.mark.parametrize("flag", REFUSED)
def test_flag_without_use_is_refused_before_anything_is_imported(flag):
    value, words = REFUSED[flag]
    with pytest.raises(InputError) as refused:
        check_command_line(["--data_dir", "data", "--report_to", "none", f"--{flag}", value])
    sentence = str(refused.value)
    assert f"Got --{flag}" in sentence
    assert words in sentence
    assert "secret" not in sentence


@pytest.mark.parametrize("words", ABSURD)
def test_absurd_numbers_and_idle_flags_are_refused_before_anything_is_imported(words):
    with pytest.raises(InputError) as refused:
        check_command_line(["--data_dir", "data", *words.split()])
    assert ABSURD[words] in str(refused.value)


@pytest.mark.parametrize("flag", REFUSED_HERE)
def test_flag_of_another_launch_is_refused(flag):
    value, words = REFUSED_HERE[flag]
    with pytest.raises(InputError) as refused:
        parse(f"--{flag}", value)
    assert f"--{flag}" in str(refused.value)
    assert words in str(refused.value)


@pytest.mark.parametrize("words", MISFITS)
def test_values_that_do_not_fit_are_refused_with_what_does(words):
    with pytest.raises(InputError) as refused:
        parse(*words.split())
    assert MISFITS[words] in str(refused.value)


@pytest.mark.parametrize("flag", TAKEN)
def test_flag_arrives_in_the_arguments(flag):
    value, expected = TAKEN[flag]
    assert getattr(parse(*BESIDE.get(flag, []), f"--{flag}", value), flag) == expected


@pytest.mark.parametrize("flag", OPTIMIZER)
def test_flag_decides_the_optimizers_settings(flag):
    value, setting, expected = OPTIMIZER[flag]
    args = parse(f"--{flag}", value, *(["--optim", "sgd"] if flag == "optim_args" else []))
    kind, settings = Trainer.get_optimizer_cls_and_kwargs(args)
    assert settings[setting] == expected
    assert (kind is torch.optim.SGD) == flag.startswith("optim")


def test_trackers_are_listed_in_words_or_with_commas_each_once():
    assert parse("--report_to", "tensorboard", "tensorboard").report_to == ["tensorboard"]
    assert parse("--report_to", "tensorboard,tensorboard").report_to == ["tensorboard"]
    assert "tensorboard" in parse("--report_to", "all").report_to
    assert parse("--report_to", "none").report_to == []


def test_schedule_of_the_flags_is_the_one_of_the_training():
    args = parse("--lr_scheduler_type", "cosine_with_min_lr", "--lr_scheduler_kwargs", '{"min_lr_rate": 0.5}')
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    schedule = get_scheduler(args.lr_scheduler_type, optimizer, 0, 2, args.lr_scheduler_kwargs)
    optimizer.step()
    schedule.step()
    schedule.step()
    assert schedule.get_last_lr() == [0.5]


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
        tiny = ["--from_scratch", "--text_config", json.dumps(TINY), "--image_size", "32", "--max_length", "16"]
        tiny += ["--vision_config", json.dumps(TINY | {"patch_size": 16}), "--fusion", "early"]
        flags = [
            "--data_dir",
            str(sample),
            "--cache_dir",
            str(tmp_path / "cache"),
            "--output_dir",
            str(tmp_path / "run"),
        ]
        flags += ["--max_steps", "2", "--logging_steps", "1", "--learning_rate", "0.01", "--warmup_steps", "0"]
        flags += ["--modality_dropout", "0", "--fusion_dropout", "0", "--report_to", "none", "--eval_strategy", "no"]
        flags += ["--save_strategy", "no", "--load_best_model_at_end", "false", "--preprocessing_num_workers", "1"]
        trainer, _, _ = assemble(*parse_arguments([*tiny, *flags, *words]))
        trainer.train()
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


def test_noise_on_embeddings_ends_with_the_training(train_losses, monkeypatch):
    models = []
    monkeypatch.setattr(
        "training.engine.trainer.deactivate_neftune", lambda encoder, hook: (models.append(encoder), hook.remove())
    )
    train_losses("--neftune_noise_alpha", "5")
    (encoder,) = models
    embeddings = encoder.get_input_embeddings().train()
    ids = torch.zeros(1, 2, dtype=torch.long)
    assert torch.equal(embeddings(ids), embeddings(ids))
