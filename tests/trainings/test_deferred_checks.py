"""Figures of updates are read late on an accelerator, and nothing else of an update is read by the host."""

import math
from contextlib import nullcontext

import pytest
import torch
from accelerate import PartialState
from conftest import LABELS, tiny_flags
from launching import list_steps
from safetensors.torch import load_file
from tiny import tiny_model
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers.training_args import OptimizerNames

from training.engine import deferred_checks
from training.engine.deferred_checks import DeferredChecks
from training.engine.objective import ClassBalance, classification_loss
from training.experiments.training import assemble
from training.flags.arguments import SentimentTrainingArguments
from training.flags.parsing import parse_arguments
from training.heads import head_trainer as probe
from training.launch.signals import REQUEUE_CODE

META = torch.device("meta")  # an accelerator in which nothing can be read: whoever tries gets an error


@pytest.fixture
def fetched(monkeypatch):
    """What is copied to the host, one list of shapes for each update; on the device meta all values are 1."""
    shapes = []

    def fetch(values):
        shapes.append(tuple(values.shape))
        return lambda: torch.ones(values.shape)

    monkeypatch.setattr(deferred_checks, "fetch", fetch)
    return shapes


@pytest.fixture
def make_trainer(fresh_state, sample, tmp_path, monkeypatch):
    """Factory of trainers on the device meta."""

    def make(*flags):
        quiet = ["--disable_tqdm", "true", "--eval_strategy", "no", "--save_strategy", "no"]
        words = parse_arguments([*tiny_flags(sample, tmp_path), *quiet, *flags])
        monkeypatch.setattr(SentimentTrainingArguments, "device", META)
        monkeypatch.setitem(PartialState._shared_state, "device", META)
        return assemble(words)[0]

    return make


def watch(mode, method, is_noted):
    """A mode of torch, and the calls within it that are noted."""
    noted = []

    def call(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if is_noted(func, args, kwargs or {}, result):
            noted.append(func)
        return result

    return type("Watch", (mode,), {method: call})(), noted


def watch_copies():
    """Copies between devices for which the host waits."""
    copies = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)

    def waits(func, args, kwargs, result):
        devices = {leaf.device for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor)}
        return func in copies and len(devices) > 1 and not kwargs.get("non_blocking", len(args) > 2 and args[2])

    return watch(TorchDispatchMode, "__torch_dispatch__", waits)


def watch_uploads():
    """Tensors that are made on a device from numbers of the host."""

    def uploads(func, args, kwargs, result):
        return func in (torch.tensor, torch.as_tensor) and result.device == META

    return watch(TorchFunctionMode, "__torch_function__", uploads)


class EnoughError(Exception):
    """Ends a training before its figures are read at its end."""


@pytest.mark.parametrize(
    "flags",
    [
        ["--model", "vilbert", "--class_weights", "sqrt", "--unimodal_loss_weight", "0.3"],
        ["--model", "baseline", "--gradient_accumulation_steps", "2", "--label_smoothing_factor", "0.1"],
        ["--model", "clip", "--fusion", "co_attn", "--max_grad_norm", "0", "--logit_adjustment", "1"],
        ["--model", "clip", "--streaming"],
    ],
    ids=lambda flags: "-".join(flags[1:4:2]),
)
def test_nothing_of_an_update_is_read_by_the_host(make_trainer, write_shards, fetched, monkeypatch, flags):
    if "--streaming" in flags:
        shards = write_shards([(str(row), LABELS[row % 3]) for row in range(30)])
        flags = [*flags, "--data_dir", str(shards)]
    common = "--per_device_train_batch_size 2 --optim adamw_torch --logging_steps 100 --max_steps 100"
    trainer = make_trainer(*common.split(), *flags)
    (copies, waited_for), (uploads, made), num_fetched = watch_copies(), watch_uploads(), []

    def step_end(self, args, state, control, **kwargs):
        num_fetched.append(len(fetched))
        if state.global_step == 1:
            made.clear()  # the sum of losses, once for a training
        if state.global_step == 5:
            raise EnoughError

    monkeypatch.setattr("training.engine.callbacks.CheckpointCallback.on_step_end", step_end)
    with copies, uploads, pytest.raises(EnoughError):
        trainer.train()
    assert next(trainer.model.parameters()).device == META
    assert waited_for == made == []
    micro_batches = trainer.args.gradient_accumulation_steps
    assert num_fetched == [update * (micro_batches + 2) for update in range(1, 6)]  # sums, losses, norm


@pytest.fixture
def late(monkeypatch):
    """Figures of the CPU are read late too."""

    def add(self, values, check):
        self._current.append((values.detach().clone, check))

    monkeypatch.setattr(DeferredChecks, "add", add)


def test_nothing_of_a_trials_update_is_read_by_the_host(fetched, monkeypatch, tmp_path):
    flags = {"report_to": "none", "head_learning_rate": 1e-3, "optim": OptimizerNames.ADAMW_TORCH.value}
    args = SentimentTrainingArguments(output_dir=str(tmp_path), **flags)
    monkeypatch.setattr(SentimentTrainingArguments, "device", META)
    monkeypatch.setattr(probe, "_autocast", lambda args: nullcontext())
    model = tiny_model("clip", "attn", freeze="both").train().to(META)
    vectors = {f"{kind}_vector": torch.ones(5, 16, device=META) for kind in ("text", "image")}
    present = {f"{kind}_present": torch.ones(5, dtype=torch.bool, device=META) for kind in ("text", "image")}
    numbers = {name: torch.zeros(5, dtype=torch.long, device=META) for name in ("labels", "row_index")}
    balance = ClassBalance(torch.ones(3), torch.zeros(3))
    update = probe._Update(model, balance, args, num_rows=5, is_light=False)
    (copies, waited_for), (uploads, made) = watch_copies(), watch_uploads()
    with copies, uploads:
        for _ in range(3):
            update(vectors | present | numbers, epoch=0)
    assert waited_for == made == []
    assert fetched == [(2,)] * 3  # loss and norm


STEPWISE = ["--save_strategy", "steps", "--eval_strategy", "steps", "--save_total_limit", "9", "--max_steps", "5"]


def test_late_checks_change_no_weight(run_train, request):
    runs = [run_train("--max_steps", "5", name="at_once")[0]]
    request.getfixturevalue("late")
    runs.append(run_train("--max_steps", "5", name="late")[0])
    first, second = (load_file(run / "model" / "model.safetensors") for run in runs)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("save_steps", "bad", "num_updates", "kept"),
    [(1, 3, 3, [1, 2]), (4, 2, 3, []), (4, 4, 4, []), (9, 5, 5, [])],
    ids=["before a checkpoint", "one update later", "at the first checkpoint", "at the end"],
)
def test_nothing_is_kept_of_an_update_that_was_not_finite(
    run_train, late, monkeypatch, refusal, tmp_path, save_steps, bad, num_updates, kept
):
    made = []

    def spoiled(*args, **kwargs):
        made.append(1)
        return classification_loss(*args, **kwargs) * (math.nan if len(made) == bad else 1)

    monkeypatch.setattr("training.engine.objective.classification_loss", spoiled)
    sentence = refusal(run_train, *STEPWISE, "--save_steps", str(save_steps), "--eval_steps", str(save_steps), code=1)
    assert f"The loss is nan at step {bad} (training rows " in sentence
    assert len(made) == num_updates
    assert list_steps(tmp_path / "run") == kept
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.parametrize(("asked_at", "stopped_at"), [(2, 3), (7, 7)], ids=["within an epoch", "in its last update"])
def test_signal_ends_a_training_with_a_checkpoint(run_train, late, monkeypatch, tmp_path, asked_at, stopped_at):
    asked = iter([False] * (asked_at - 1) + [True] * 9)
    monkeypatch.setattr("training.engine.trainer.is_stop_requested", lambda: next(asked))
    with pytest.raises(SystemExit) as ending:
        run_train("--num_train_epochs", "2", "--save_strategy", "epoch")
    assert ending.value.code == REQUEUE_CODE
    assert list_steps(tmp_path / "run") == [stopped_at]
