"""Whether options pay: steps with one against the same steps without it, each side with the reading of its batches."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from unittest.mock import patch

import torch
from datasets import Dataset

from benchmarks.results import Result
from benchmarks.setting import Setting
from benchmarks.step import step_on
from benchmarks.turns import compare, time_of
from data_utils.prepare.batches import BatchReader
from data_utils.prepare.collator import PairCollator
from training.data.features import cache_features
from training.engine.trainer import SentimentTrainer

LENGTH_STEPS, CACHE_STEPS, COMPILED_STEPS = 5, 6, 3
CACHED_ROWS = 256
TARGET = 1.0
# train.py's loop makes its first step, with everything a step needs; more of them are made from here.
ONE_STEP = ("--max_steps", "1", "--lr_scheduler_type", "constant", "--eval_strategy", "no", "--report_to", "none")
# Finds the graphs and compiles no C++, which takes minutes for the smallest model too.
QUICK_BACKEND = "eager"
Plan = Sequence[Sequence[int]]


def measure(setting: Setting) -> list[Result]:
    """Samples per second with grouped lengths, with cached hidden states and compiled, against those without.

    Where nothing can be compiled, the last note says so in place of that result.
    """
    results = [measure_lengths(setting), measure_cache(setting)]
    try:
        return [*results, measure_compile(setting)]
    except torch._dynamo.exc.BackendCompilerFailed as error:
        reason = next(iter(str(error.inner_exception).splitlines()), type(error.inner_exception).__name__)
        note = f"{results[-1].note}; --torch_compile is left out, as it fails here ({reason.rstrip('.')})"
        return [*results[:-1], replace(results[-1], note=note)]


def measure_lengths(setting: Setting) -> Result:
    """--train_sampling_strategy group_by_length against random order: the same model, an epoch's rows in other batches.

    A turn takes batches from all over an epoch, since grouped ones come from the longest to the shortest.
    """
    steps = setting.steps(LENGTH_STEPS)
    with setting.assemble(*ONE_STEP) as (trainer, prepared):
        trainer.train()
        plans = [plan_epoch(trainer, strategy) for strategy in ("group_by_length", "random")]
        lengths = BatchReader(prepared.train).lengths
        padding, other_padding = (f"{count_padding(plan, lengths):.0%}" for plan in plans)
        sides = [Steps(trainer, prepared.train, trainer.data_collator, plan=plan, steps=steps) for plan in plans]
        note = (
            f"{steps} batches a turn, evenly from the {len(plans[0])} of an epoch of {len(lengths)} rows; of the "
            f"text's tokens {padding} are padding, in random order {other_padding}"
        )
        about = ("steps with --train_sampling_strategy group_by_length", "samples/s", "random order")
        return compare(*about, sides, setting.repeats, target=TARGET, note=note)


def measure_cache(setting: Setting) -> Result:
    """--unfreeze_last 2 with --cache_features against running the frozen blocks: the same model and rows."""
    steps = setting.steps(CACHE_STEPS)
    flags = ("--unfreeze_last", "1" if setting.quick else "2", "--max_train_samples", str(CACHED_ROWS))
    with (
        setting.assemble(*ONE_STEP, *flags, "--cache_features", "false") as (trainer, prepared),
        tempfile.TemporaryDirectory(dir=setting.work_dir) as folder,
    ):
        trainer.train()
        args, collator = trainer.args, trainer.data_collator
        options = {"cache_features": True, "rows": prepared.train_rows, "cache_dir": Path(folder), "args": args}
        fill = partial(cache_features, trainer.model, prepared.rows, collator, **options)
        seconds = time_of(fill)
        dataset, of_features = fill()  # from the files now, as every later run has them
        plan = plan_epoch(trainer, "random")
        sources = [(replace(prepared, rows=dataset).train, of_features), (prepared.train, collator)]
        sides = [Steps(trainer, *source, plan=plan, steps=steps) for source in sources]
        note = (
            f"batch {args.train_batch_size}, precision {args.mixed_precision}, {steps} steps a turn; the pass that "
            f"fills the cache is made once, not counted, and took {seconds:.1f} s for {len(plan_rows(plan))} rows"
        )
        about = (f"steps with {' '.join(flags[:2])} --cache_features", "samples/s", "frozen blocks run")
        return compare(*about, sides, setting.repeats, target=TARGET, note=note)


def measure_compile(setting: Setting) -> Result:
    """--torch_compile against eager steps: the same model and batches.

    The collator pads each batch to its longest text, no further, so that the compiler meets many lengths.

    Raises:
        BackendCompilerFailed: there is no C++ compiler, or it doesn't work.
    """
    steps = setting.steps(COMPILED_STEPS)
    backend = QUICK_BACKEND if setting.quick else "inductor"
    flags = ("--torch_compile", "--torch_compile_backend", backend)
    with own_compiler_state(setting.work_dir), setting.assemble(*ONE_STEP, *flags) as (trainer, prepared):
        seconds = time_of(trainer.train)
        plan = plan_epoch(trainer, "random")
        compiled, eager, first = (
            Steps(trainer, prepared.train, trainer.data_collator, plan=plan, steps=steps) for _ in range(3)
        )
        seconds += time_of(first)
        num_graphs = count_graphs()
        sides = [compiled, torch.compiler.set_stance("force_eager")(eager)]
        result = compare("steps with --torch_compile", "samples/s", "eager", sides, setting.repeats, target=TARGET)
        num_later = count_graphs() - num_graphs
    args = trainer.args
    note = (
        f"backend {backend}, batch {args.train_batch_size}, precision {args.mixed_precision}, {steps} steps a turn, "
        f"each batch padded to its longest text; the first {1 + steps} steps compiled {num_graphs} graphs, took "
        f"{seconds:.0f} s and aren't counted; {num_later} graphs were compiled in the turns"
    )
    return replace(result, note=note)


class Steps:
    """One side: so many steps on rows that are read as train.py's loader does it, others in each turn.

    Args:
        trainer: after its `train`, which leaves the optimizer and all else in place.
        dataset, collator: rows and the way to a batch.
        plan: rows of the batches of an epoch.
        steps: per turn.
    """

    def __init__(
        self, trainer: SentimentTrainer, dataset: Dataset, collator: PairCollator, *, plan: Plan, steps: int
    ) -> None:
        self._trainer, self._reader, self._collator = trainer, BatchReader(dataset), collator
        self._turns = deal_batches(plan, steps)

    def __call__(self) -> float:
        """Samples per second of the next turn."""
        batches = next(self._turns)
        return len(plan_rows(batches)) / time_of(partial(self._train_on, batches))

    def _train_on(self, plan: Plan) -> None:
        for rows in plan:
            batches = iter([self._collator(self._reader.__getitems__(rows))])
            (batch,), weight_sum = self._trainer.get_batch_samples(batches, 1, self._trainer.args.device)
            step_on(self._trainer, [(batch, weight_sum)])


def plan_epoch(trainer: SentimentTrainer, strategy: str) -> Plan:
    """Rows of each full batch of an epoch in the order of this --train_sampling_strategy."""
    trainer.args = trainer.args.replace(train_sampling_strategy=strategy)
    batches = list(trainer.get_train_dataloader().batch_sampler)
    return [rows for rows in batches if len(rows) == trainer.args.train_batch_size]


def deal_batches(plan: Plan, steps: int) -> Iterator[Plan]:
    """Without end, for each turn `steps` batches at even distances in the epoch, and for the next those behind them."""
    distance = max(1, len(plan) // steps)
    for turn in count():
        yield plan[turn % distance :: distance][:steps]


def plan_rows(plan: Plan) -> list[int]:
    """The rows of all batches."""
    return [row for rows in plan for row in rows]


def count_padding(plan: Plan, lengths: Sequence[int]) -> float:
    """Share of padding in the tokens (B, L) of all batches, for texts of these lengths (N,)."""
    computed = sum(len(rows) * max(lengths[row] for row in rows) for rows in plan)
    return 1 - sum(lengths[row] for row in plan_rows(plan)) / computed


def count_graphs() -> int:
    """Graphs that torch.compile has compiled so far."""
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


@contextmanager
def own_compiler_state(work_dir: Path) -> Iterator[None]:
    """Within, nothing compiled earlier is found; afterwards nothing compiled here."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    temporary = tempfile.TemporaryDirectory(dir=work_dir, ignore_cleanup_errors=True)
    with temporary as folder, patch.dict("os.environ", TORCHINDUCTOR_CACHE_DIR=folder):
        try:
            yield
        finally:
            torch._dynamo.reset()
