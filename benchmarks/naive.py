"""The way this task is usually done, for comparison only: a processor inside the step, on one picture at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

from benchmarks.report import Result
from benchmarks.runner import ENDLESS, find_device, synchronize, time_loop
from benchmarks.setting import Setting
from benchmarks.steps import describe
from evaluation.predict.inference import Batch
from modeling.batch import Features
from modeling.fusion import FUSION_HEADS

# Target, and flags beside the shipped ones.
RATES = {"shipped defaults": (4.0, ()), "float32, equal mathematics": (1.5, ("--bf16", "false"))}
# On a GPU, by rows of a batch: steps a turn of the naive way.
GPU_STEPS, QUICK_GPU_STEPS = {8: 5, 64: 2, 256: 1}, {2: 1, 4: 1}


def measure(setting: Setting) -> Iterator[Result]:
    """train.py at batch 8 as it is shipped, and in float32, each against the naive way."""
    for name, (target, flags) in RATES.items():
        with own_process() as pool:
            loop, slow, note = race(setting, pool, *flags, steps=setting.steps(2))
        about = (loop, "samples/s", "the naive way", slow)
        yield Result(f"train.py's loop, {name}", *about, target=target, note=note)


def measure_gpu(setting: Setting) -> Iterator[Result]:
    """Samples per second of both, in turn at each batch, and each at the batch that is best for it."""
    loops, slows, note = {}, {}, "train.py in bfloat16, the naive way in float32"
    with own_process() as pool:
        for rows, few in (QUICK_GPU_STEPS if setting.quick else GPU_STEPS).items():
            flags = ("--bf16", "true", "--per_device_train_batch_size", str(rows))
            loops[rows], slows[rows], _ = race(setting, pool, *flags, steps=setting.steps(20), few=few)
            about = (loops[rows], "samples/s", "the naive way", slows[rows])
            yield Result(f"batch {rows}", *about, target=3.0 if rows == 8 else None, note=note)
    best, other_best = (max(rates, key=lambda rows: median(rates[rows])) for rates in (loops, slows))
    note = f"train.py at batch {best}, the naive way at batch {other_best}; not in turn, if they differ"
    about = (loops[best], "samples/s", "the naive way", slows[other_best])
    yield Result("each at its best batch", *about, target=10.0, note=note)


def own_process() -> ProcessPoolExecutor:
    """For the naive way: its memory is managed as the C library does by itself."""
    return ProcessPoolExecutor(1, get_context("spawn"))


def race(
    setting: Setting, pool: ProcessPoolExecutor, *flags: str, steps: int, few: int | None = None
) -> tuple[list[float], list[float], str]:
    """Samples per second of train.py's loop and of the naive way on the first `few` of its batches, and a note."""
    with setting.assemble(*ENDLESS, *flags) as (trainer, prepared):
        stems = [str(setting.data_dir / "data" / guid) for guid in prepared.train["guid"][:]]

        def train(batches: Sequence[Batch]) -> None:
            chosen = [([stems[row] for row in batch["row_index"]], batch["labels"].tolist()) for batch in batches]
            pool.submit(train_naively, str(setting.clip_name), chosen).result()

        repeats = min(setting.repeats, 3 if few else 5)
        loop, slow = time_loop(trainer, train, steps=steps, other_steps=few, repeats=repeats)
        return loop, slow, describe(trainer)


@cache
def load(clip_name: str) -> Any:
    """CLIP under train.py's default head, its processors and torch's own AdamW."""
    torch.manual_seed(0)
    clip = CLIPModel.from_pretrained(clip_name, dtype=torch.float32, trust_remote_code=False)
    head = FUSION_HEADS["attn"](clip.config.projection_dim, 3, dropout=0.1)
    model = nn.ModuleList([clip, head]).to(find_device()).train()
    kinds = (AutoTokenizer, CLIPImageProcessorPil)
    processors = [kind.from_pretrained(clip_name, trust_remote_code=False) for kind in kinds]
    return model, *processors, torch.optim.AdamW(model.parameters(), lr=1e-5)


def train_naively(clip_name: str, batches: Sequence[tuple[Sequence[str], Sequence[int]]]) -> None:
    """Updates in float32 on batches of files (without their suffixes) and labels."""
    model, tokenizer, picture_processor, optimizer = load(clip_name)
    for stems, labels in batches:
        texts = [Path(f"{stem}.txt").read_text(encoding="utf-8", errors="replace") for stem in stems]
        pictures = [Image.open(f"{stem}.jpg").convert("RGB") for stem in stems]
        inputs = tokenizer(texts, padding="max_length", truncation=True, max_length=77, return_tensors="pt")
        inputs["pixel_values"] = picture_processor(pictures, return_tensors="pt")["pixel_values"]
        names = ("input_ids", "attention_mask", "pixel_values")
        optimizer.zero_grad()
        outputs = model[0](**{name: inputs[name].to(find_device()) for name in names})
        logits = model[1](Features(outputs.text_embeds), Features(outputs.image_embeds))
        F.cross_entropy(logits, torch.tensor(labels, device=logits.device)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    synchronize()
