"""How other programs call what our flags do; nothing heavy is imported."""

from __future__ import annotations

_TRAIN_BATCH = "per_device_train_batch_size | per_device_eval_batch_size"
_WORKERS = "dataloader_num_workers | preprocessing_num_workers"
# {the flags to try, of which the first that a program has is told: other names for it}.
_MEANT = {
    "learning_rate": "lr",
    "head_learning_rate": "head_lr",
    "weight_decay": "wd",
    "optim": "optimizer",
    "lr_scheduler_type": "scheduler lr_scheduler",
    "warmup_steps 0.1": "warmup warmup_ratio",
    _TRAIN_BATCH: "batch batch_size bs train_batch_size",
    "gradient_accumulation_steps": "grad_accum accumulation_steps",
    "num_train_epochs": "epochs num_epochs",
    "max_steps": "steps",
    "max_grad_norm": "clip_grad grad_clip gradient_clipping",
    "label_smoothing_factor": "label_smoothing",
    "train_sampling_strategy group_by_length": "group_by_length",
    "early_stopping_patience": "patience",
    "early_stopping_patience 3": "early_stopping",
    "eval_strategy": "evaluation_strategy",
    "metric_for_best_model": "metric",
    "fusion_dropout": "dropout",
    "bf16 no | mixed_precision no": "fp32",
    "bf16 | mixed_precision bf16": "amp",
    "fp16 | mixed_precision fp16": "half",
    "torch_compile": "compile jit_mode_eval",
    "use_cpu": "cpu no_cuda device",
    _WORKERS: "workers num_workers",
    "resume_from_checkpoint latest": "resume",
    "data_dir": "data dataset data_path data_root",
    "labels": "classes",
    "val_ratio": "val_split validation_split test_size",
    "folds": "num_folds kfold cv",
    "max_length": "max_len max_seq_length",
    "image_size": "img_size",
    "output | output_dir": "out",
    "output_dir": "output save_dir run_dir logging_dir",
    "output": "output_file",
    "model": "arch",
    "fusion": "head",
    "clip_name": "model_name model_name_or_path pretrained",
    "text_name": "text_model bert_name tokenizer",
    "vision_name": "image_name image_model vision_model vit_name",
    "report_to wandb": "wandb",
    "report_to tensorboard": "tensorboard",
    "predict": "test_file",
    # Of earlier versions of transformers.
    "bf16": "mixed_precision half_precision_backend",
    "fp16": "fp16_opt_level",
    "include_num_input_tokens_seen": "include_tokens_per_second",
    "per_device_eval_batch_size": "eval_batch_size per_gpu_eval_batch_size",
    "per_device_train_batch_size": "per_gpu_train_batch_size",
    "accelerator_config": "split_batches",
    "torch_compile_backend": "torchdynamo",
}
SYNONYMS = {name: tuple(flags.split(" | ")) for flags, names in _MEANT.items() for name in names.split()}
# What is said of names that no flag of ours stands for.
_ASIDE = " It isn't needed: an earlier run in --output_dir is moved aside by itself."
_LAUNCH = " It belongs to the launcher, in front of the program: accelerate launch --{} ..."
ANSWERS = {
    **dict.fromkeys(("overwrite_output_dir", "overwrite", "force"), _ASIDE),
    "config_file": _LAUNCH.format("config_file FILE.yaml"),
    **dict.fromkeys(
        ("gpus", "num_gpus", "num_processes", "nproc_per_node", "world_size"), _LAUNCH.format("num_processes N")
    ),
    **dict.fromkeys(("nnodes", "num_nodes", "num_machines"), _LAUNCH.format("num_machines N")),
}
