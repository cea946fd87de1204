"""The way this task is usually done, for comparison only: a processor inside the step, on one picture at a time."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

from benchmarks.results import Result
from benchmarks.setting import Setting
from benchmarks.turns import ENDLESS, Batch, LoopTimer, find_device, synchronize
from modeling.batch import Features
from modeling.fusion import FUSION_HEADS

STEPS = 2
LONGEST = 77
RATES = {"shipped defaults": ((), 4.0), "float32, equal mathematics": (("--bf16", "false"), 1.5)}
# On a GPU, by rows of a batch: steps a turn of the naive way.
GPU_STEPS, GPU_NAIVE_STEPS, QUICK_NAIVE_STEPS = 20, {8: 5, 64: 2, 256: 1}, {2: 1, 4: 1}
GPU_MOST_REPEATS = 3
GPU_TARGET, GPU_BEST_TARGET = 3.0, 10.0


def measure(setting: Setting) -> list[Result]:
    """train.py at batch 8 as it is shipped, and in float32, each against the naive way."""
    results = []
    steps = setting.steps(STEPS)
    for name, (flags, target) in RATES.items():
        with setting.assemble(*ENDLESS, *flags) as (trainer, prepared), naive_steps(setting) as naive:
            timer = LoopTimer(trainer, partial(naive, prepared.train["guid"][:]), steps=steps, repeats=setting.repeats)
            note = f"batch {trainer.args.train_batch_size}, {name}: precision {trainer.args.mixed_precision}"
        results.append(timer.to_result(f"train.py's loop, {name}", "the naive way", target=target, note=note))
    return results


def measure_gpu(setting: Setting) -> Iterator[Result]:
    """Samples per second of both, in turn at each batch, and each at the batch that is best for it."""
    repeats, steps, timers = min(setting.repeats, GPU_MOST_REPEATS), setting.steps(GPU_STEPS), {}
    with naive_steps(setting) as naive:
        for rows, naive_steps_a_turn in (QUICK_NAIVE_STEPS if setting.quick else GPU_NAIVE_STEPS).items():
            flags = ("--bf16", "true", "--per_device_train_batch_size", str(rows))
            with setting.assemble(*ENDLESS, *flags) as (trainer, prepared):
                other = partial(naive, prepared.train["guid"][:])
                timer = LoopTimer(trainer, other, steps=steps, other_steps=naive_steps_a_turn, repeats=repeats)
            timers[rows] = timer
            target = GPU_TARGET if rows == min(GPU_NAIVE_STEPS) else None
            note = "train.py in bfloat16, the naive way in float32"
            yield timer.to_result(f"batch {rows}", "the naive way", target=target, note=note)
    best = max(timers, key=lambda rows: median(timers[rows].loop))
    naive_best = max(timers, key=lambda rows: median(timers[rows].other))
    note = f"train.py at batch {best}, the naive way at batch {naive_best}; not in turn, if they differ"
    about = ("each at its best batch", timers[best].loop, "samples/s", "the naive way", timers[naive_best].other)
    yield Result(*about, target=GPU_BEST_TARGET, note=note)


class NaiveClassifier(nn.Module):
    """CLIP under train.py's default head; text and pictures go through CLIP's processors in every forward."""

    def __init__(self, clip_name: str) -> None:
        super().__init__()
        self.clip = CLIPModel.from_pretrained(clip_name, dtype=torch.float32, trust_remote_code=False)
        self.tokenizer = AutoTokenizer.from_pretrained(clip_name, trust_remote_code=False)
        self.picture_processor = CLIPImageProcessorPil.from_pretrained(clip_name, trust_remote_code=False)
        self.head = FUSION_HEADS["attn"](self.clip.config.projection_dim, 3, dropout=0.1)

    def forward(self, texts: Sequence[str], pictures: Sequence[Image.Image]) -> Tensor:
        """B texts and pictures -> logits (B, C)."""
        tokens = self.tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=LONGEST, return_tensors="pt"
        )
        pixels = self.picture_processor(list(pictures), return_tensors="pt")["pixel_values"]
        outputs = self.clip(
            input_ids=tokens["input_ids"].to(self.clip.device),
            attention_mask=tokens["attention_mask"].to(self.clip.device),
            pixel_values=pixels.to(self.clip.device),
        )
        return self.head(Features(outputs.text_embeds), Features(outputs.image_embeds))


@contextmanager
def naive_steps(setting: Setting) -> Iterator[Callable[[Sequence[str], Sequence[tuple[Batch, Tensor]]], None]]:
    """A function that trains on the rows of some batches, given all guids, from the files: float32, torch's own AdamW.

    It works in a process of its own, whose memory is managed as the C library does by itself.
    """
    ours, theirs = multiprocessing.Pipe()
    folder = setting.data_dir / "data"
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs, str(setting.clip_name)))
    process.start()

    def run(guids: Sequence[str], batches: Sequence[tuple[Batch, Tensor]]) -> None:
        ours.send(
            [
                ([str(folder / guids[row]) for row in batch["row_index"].tolist()], batch["labels"].tolist())
                for batch, _ in batches
            ]
        )
        ours.recv()

    try:
        yield run
    finally:
        process.terminate()
        process.join()


def serve(connection: Connection, clip_name: str) -> None:
    """Make the updates that are asked for, and answer after each list of them."""
    torch.manual_seed(0)
    device = find_device()
    model = NaiveClassifier(clip_name).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    while True:
        for stems, labels in connection.recv():
            texts = [Path(f"{stem}.txt").read_text(encoding="utf-8", errors="replace") for stem in stems]
            pictures = [Image.open(f"{stem}.jpg").convert("RGB") for stem in stems]
            optimizer.zero_grad()
            loss = F.cross_entropy(model(texts, pictures), torch.tensor(labels, device=device))
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        synchronize()
        connection.send(None)
