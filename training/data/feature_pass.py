"""One pass of a frozen tower, or of the frozen part of one, over rows; its output goes into an Arrow file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, Features, Value
from datasets.arrow_writer import ArrowWriter
from torch import Tensor
from torch.utils.data import DataLoader

from data_utils.console.progress import progress
from data_utils.prepare.batches import BatchReader
from data_utils.prepare.collator import FeatureColumn, PairCollator
from data_utils.prepare.columns import TOWER_INPUTS
from data_utils.system.device_copies import fetch
from modeling.classifier import SentimentClassifier
from modeling.towers import Tower
from training.launch.ranks import is_main_process

PICTURES_PER_BATCH = 64
# Texts are sorted by length and packed up to so many tokens, padding included.
TOKENS_PER_BATCH = 4096
# Texts that are sorted together and held in memory before they are written in the data set's order.
WINDOW = 512
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def sequence_dtype(precision: str) -> str:
    """Type in which tokens are kept; vectors are float32."""
    return "bfloat16" if precision == "bf16" else "float32"


@dataclass(frozen=True)
class FeaturePass:
    """A tower at work: the model's of a kind (text or image), on a device, in a mixed precision (no, bf16, fp16)."""

    model: SentimentClassifier
    kind: str
    columns: tuple[FeatureColumn, ...]
    collator: PairCollator
    device: torch.device
    precision: str
    num_workers: int = 0

    @property
    def tower(self) -> Tower:
        return self.model.towers()[self.kind]

    def write(self, dataset: Dataset, rows: range, wanted: np.ndarray, folder: Path) -> None:
        """Write features of some of the N rows into a file of `folder`; null where a row isn't wanted, (N,) bool."""
        reader = BatchReader(dataset)
        step = WINDOW if self.kind == "text" else PICTURES_PER_BATCH
        windows = [np.arange(start, min(start + step, rows.stop)) for start in range(rows.start, rows.stop, step)]
        packed = [self._pack(window[wanted[window]], reader) for window in windows]
        names = [column.name for column in self.columns]
        features = Features(dict.fromkeys(names, Value("binary")))
        with ArrowWriter(path=str(folder / "part.arrow"), features=features) as writer, self._ready():
            outputs = self._run(reader, [*chain.from_iterable(packed)])
            for window, batches in zip(windows, packed, strict=True):
                found: dict[int, list[bytes]] = {}
                for batch in batches:
                    found |= zip(batch, next(outputs), strict=True)
                lines = [found.get(row, [None] * len(names)) for row in window.tolist()]
                writer.write_batch(dict(zip(names, zip(*lines, strict=True), strict=True)))
            writer.finalize()

    def _pack(self, rows: np.ndarray, reader: BatchReader) -> list[list[int]]:
        """The rows of a window to batches: pictures as they are, texts of like length together."""
        if self.kind == "image":
            return [rows.tolist()] if len(rows) else []
        assert reader.lengths is not None
        batches: list[list[int]] = []
        room = 0
        for length, row in sorted(zip(reader.lengths[rows].tolist(), rows.tolist(), strict=True), reverse=True):
            if room < 1:
                batches.append([])
                room = TOKENS_PER_BATCH // length
            batches[-1].append(row)
            room -= 1
        return batches

    def _run(self, reader: BatchReader, batches: list[list[int]]) -> Iterator[list[list[bytes]]]:
        """For each batch the encoded columns of its rows, a batch late: an accelerator goes on meanwhile."""
        pin = self.device.type != "cpu"
        loader = DataLoader(
            reader,
            batch_sampler=batches,
            collate_fn=replace(self.collator, pin=pin),
            num_workers=self.num_workers,
            generator=torch.Generator(),  # or the pass would draw from the random numbers of the training
            pin_memory=pin,
        )
        kind = f"{self.kind} features"
        arriving: list[Callable[[], list[list[bytes]]]] = []
        for batch in progress(loader, description=kind, unit="batches", is_shown=is_main_process(), stays=False):
            arriving.append(self._compute(batch))
            if len(arriving) == 2:
                yield arriving.pop(0)()
        yield from (receive() for receive in arriving)

    def _compute(self, batch: dict[str, Tensor]) -> Callable[[], list[list[bytes]]]:
        """Begin with what the frozen part makes of a batch; the answer gives it, row by row, when it has arrived."""
        tower = self.tower
        lengths = [None] * len(batch["row_index"])
        if self.kind == "text" and not (tower.pads_texts and not tower.is_frozen):
            # Without their padding; but where texts are padded to one length, the blocks read the padding too.
            lengths = batch["attention_mask"].sum(1).tolist()
        inputs = {name: batch[name].to(self.device, non_blocking=True) for name in TOWER_INPUTS[self.kind]}
        if self.kind == "image":
            inputs["pixel_values"] = self.model.normalize(inputs["pixel_values"])
        if tower.is_frozen:
            found = dict(zip((f"{self.kind}_vector", f"{self.kind}_tokens"), tower(**inputs), strict=True))
        else:
            found = {f"{self.kind}_hidden": tower.run_frozen(**inputs)}
        waits = [(column, fetch(found[column.name])) for column in self.columns]

        def receive() -> list[list[bytes]]:
            encoded = []
            for column, wait in waits:
                ends = [None] * len(lengths) if column.is_vector else lengths
                encoded.append([column.encode(row[:end]) for row, end in zip(wait(), ends, strict=True)])
            return [list(row) for row in zip(*encoded, strict=True)]

        return receive

    @contextmanager
    def _ready(self) -> Iterator[None]:
        """The tower on the device; evaluation mode, no gradients, mixed precision."""
        tower, dtype = self.tower, AUTOCAST.get(self.precision)
        home, was_training = tower.encoder.device, tower.training
        tower.to(self.device).eval()
        try:
            with torch.no_grad(), torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
                yield
        finally:
            tower.to(home).train(was_training)
