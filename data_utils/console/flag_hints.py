"""How other programs call what our flags do; nothing heavy is imported."""

from __future__ import annotations

# {the flags to try, of which the first that a program has is told: other names for it}.
_MEANT = {
    "learning_rate": "lr",
    "weight_decay": "wd",
    "lr_scheduler_type": "scheduler lr_scheduler",
    "warmup_steps 0.1": "warmup warmup_ratio",
    "per_device_train_batch_size | per_device_eval_batch_size": "batch batch_size bs train_batch_size",
    "per_device_train_batch_size": "per_gpu_train_batch_size",
    "per_device_eval_batch_size": "eval_batch_size per_gpu_eval_batch_size",
    "gradient_accumulation_steps": "grad_accum accumulation_steps",
    "num_train_epochs": "epochs num_epochs",
    "max_steps": "steps",
    "max_grad_norm": "clip_grad grad_clip gradient_clipping",
    "train_sampling_strategy group_by_length": "group_by_length",
    "early_stopping_patience 3": "early_stopping patience",
    "bf16 no | mixed_precision no": "fp32",
    "bf16 | mixed_precision bf16": "amp",
    "fp16 | mixed_precision fp16": "half fp16_opt_level",
    "bf16": "mixed_precision half_precision_backend",
    "torch_compile": "compile jit_mode_eval",
    "torch_compile_backend": "torchdynamo",
    "use_cpu": "cpu no_cuda device",
    "dataloader_num_workers | preprocessing_num_workers": "workers num_workers",
    "include_num_input_tokens_seen": "include_tokens_per_second",
    "accelerator_config": "split_batches",
    "resume_from_checkpoint latest": "resume",
    "data": "dataset data_path data_root train_data csv",
    "labels": "classes",
    "val_ratio": "validation_split test_size",
    "folds": "kfold cv",
    "max_length": "max_len max_seq_length",
    "output | output_dir": "out",
    "output_dir": "output save_dir run_dir logging_dir",
    "output": "output_file",
    "model": "arch",
    "fusion": "head",
    "clip_name": "model_name model_name_or_path pretrained",
    "text_name": "text_model bert_name tokenizer",
    "vision_name": "image_name image_model vision_model vit_name",
    "lora_rank": "lora lora_r",
    "ema_decay": "ema model_ema",
    "report_to wandb": "wandb",
    "report_to tensorboard": "tensorboard",
    "predict": "test_file",
}
SYNONYMS = {name: tuple(flags.split(" | ")) for flags, names in _MEANT.items() for name in names.split()}
# What is said of names that no flag of ours stands for.
_ASIDE = " It isn't needed: an earlier run in --output_dir is moved aside by itself."
_WHOLE = " Towers are trained and saved in float32; to spare memory take --lora_rank, --freeze, or ZeRO-3."
_LAUNCH = " It belongs to the launcher, in front of the program: accelerate launch --{} ..."
ANSWERS = {
    **dict.fromkeys(("overwrite_output_dir", "overwrite", "force"), _ASIDE),
    **dict.fromkeys(("load_in_4bit", "load_in_8bit"), _WHOLE),
    "config_file": _LAUNCH.format("config_file FILE.yaml"),
    **dict.fromkeys(
        ("gpus", "num_gpus", "num_processes", "nproc_per_node", "world_size"), _LAUNCH.format("num_processes N")
    ),
    **dict.fromkeys(("nnodes", "num_nodes", "num_machines"), _LAUNCH.format("num_machines N")),
}
