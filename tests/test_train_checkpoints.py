"""Checkpoints of train.py: a resumed run equals a whole one, and the model that is kept is the best."""

import json

import pytest
import torch
from safetensors.torch import load_file

from modeling.classifier import SentimentClassifier
from training.checkpoint import checkpoints
from training.checkpoint.checkpoints import list_checkpoints


def test_resumed_run_equals_the_uninterrupted_one(run_train):
    common = ["--model", "clip", "--num_train_epochs", "2", "--save_total_limit", "9"]
    whole, _ = run_train(*common, name="whole")
    part, _ = run_train(*common, "--early_stopping_patience", "0", name="part")
    first_epoch, second_epoch = list_checkpoints(part / "checkpoints")
    second_epoch.rename(part / "thrown_away")
    resumed, screen = run_train(*common, "--resume_from_checkpoint", "latest", name="part")
    assert f"Resuming from {first_epoch}" in screen
    first, second = (SentimentClassifier.from_pretrained(run / "model").state_dict() for run in (whole, resumed))
    assert all(torch.equal(first[name], second[name]) for name in first)
    told = json.loads((resumed / "metrics.json").read_text())["training"]
    rows = told["samples_per_second"] * told["seconds"]
    assert rows == pytest.approx(told["num_train_rows"], rel=0.01)  # of the one epoch that it trained


def test_resume_without_checkpoint_starts_anew_with_a_notice(run_train):
    run, screen = run_train("--resume_from_checkpoint", "latest", "--max_steps", "1")
    assert "No checkpoint in" in screen
    assert (run / "metrics.json").is_file()


def test_cut_off_checkpoint_is_passed_over(run_train):
    run, _ = run_train("--num_train_epochs", "2")
    first, second = sorted(run.glob("checkpoints/checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    (second / "trainer_state.json").unlink()
    _, screen = run_train("--num_train_epochs", "2", "--resume_from_checkpoint", "latest")
    assert f"{second} is incomplete" in screen
    assert f"Resuming from {first}" in screen


def zero(file, start=0, length=None):
    """Overwrite bytes with zeros, by default all, as a machine that lost power leaves them."""
    content = bytearray(file.read_bytes())
    end = len(content) if length is None else start + length
    content[start:end] = bytes(end - start)
    file.write_bytes(content)


@pytest.mark.parametrize("start", [None, 40_000])
def test_zeroed_checkpoint_is_passed_over(run_train, start):
    run, _ = run_train("--num_train_epochs", "2")
    first, second = list_checkpoints(run / "checkpoints")
    if start is None:
        zero(second / "optimizer.pt")
    else:
        zero(second / "model.safetensors", start, 4000)
    _, screen = run_train("--num_train_epochs", "2", "--resume_from_checkpoint", "latest")
    assert f"{second} is incomplete or damaged" in screen
    assert f"Resuming from {first}" in screen


@pytest.fixture
def published(tmp_path):
    """A checkpoint of a short file and of one that counts as long: 100 blocks of 100 bytes, of which 64 are hashed."""
    grown = tmp_path / checkpoints.PARTIAL / "checkpoint-1"
    grown.mkdir(parents=True)
    (grown / "short").write_bytes(b"x" * 900)
    (grown / "long").write_bytes(b"x" * 10_000)
    checkpoints.publish(grown, tmp_path, world_size=1, global_batch_size=1, optimizer="any", update_flags={})
    return tmp_path / "checkpoint-1"


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(checkpoints, "MAX_BYTES_HASHED_WHOLE", 1000)
    monkeypatch.setattr(checkpoints, "BLOCK_BYTES", 100)


@pytest.mark.parametrize(
    ("name", "start", "length", "intact"),
    [
        ("short", 0, 0, True),
        ("short", 450, 1, False),
        ("long", 0, 1, False),
        ("long", 9_999, 1, False),
        ("long", 5_000, 200, False),
        ("long", 110, 1, True),  # between the first two blocks: the price of not reading all
    ],
)
def test_digests_tell_damage_at_full_length(small_blocks, published, name, start, length, intact):
    zero(published / name, start, length)
    assert checkpoints.read_manifest(published) is not None
    assert checkpoints.is_intact(published) == intact


def test_checkpoint_without_digests_is_judged_by_lengths(published):
    manifest = published / checkpoints.MANIFEST
    content = json.loads(manifest.read_text())
    del content["digests"]
    manifest.write_text(json.dumps(content))
    zero(published / "short")
    assert checkpoints.is_intact(published)
    (published / "short").write_bytes(b"x")
    assert not checkpoints.is_intact(published)


def test_finished_run_goes_on_for_more_epochs(run_train):
    flags = ["--head_learning_rate", "1e-3", "--lr_scheduler_kwargs", '{"num_cycles": 0.4}']  # given or not, the same
    run_train("--num_train_epochs", "1", *flags)
    run, screen = run_train("--num_train_epochs", "2", *flags[2:], "--resume_from_checkpoint", "latest")
    assert "Resuming from" in screen
    assert json.loads((run / "metrics.json").read_text())["training"]["epochs"] == 2


def test_checkpoint_that_names_no_flags_goes_on(run_train):
    """Those of earlier versions."""
    run, _ = run_train("--max_steps", "1")
    manifest = next(run.glob("checkpoints/*/checkpoint.json"))
    content = json.loads(manifest.read_text())
    del content["update_flags"]
    manifest.write_text(json.dumps(content))
    _, screen = run_train("--max_steps", "2", "--weight_decay", "0.3", "--resume_from_checkpoint", "latest")
    assert "Resuming from" in screen


def test_resuming_a_finished_run_changes_nothing(run_train):
    rhythm = ["--max_steps", "3", "--save_strategy", "steps", "--save_steps", "3", "--eval_strategy", "no"]
    run, _ = run_train(*rhythm)
    before = SentimentClassifier.from_pretrained(run / "model").state_dict()
    (run / "metrics.json").unlink()  # killed between the last checkpoint and the results
    run_train(*rhythm, "--resume_from_checkpoint", "latest")
    after = SentimentClassifier.from_pretrained(run / "model").state_dict()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    metrics = json.loads((run / "metrics.json").read_text())["training"]
    assert (metrics["steps"], metrics["resumed_at_step"]) == (3, 3)
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["checkpoint-3"]


def test_resuming_in_another_folder_finds_the_best_and_spares_what_is_there(run_train, tmp_path):
    # The loss falls, so the "best" is the first.
    best = ["--metric_for_best_model", "loss", "--greater_is_better", "True", "--save_total_limit", "9"]
    common = ["--num_train_epochs", "3", *best]
    first, _ = run_train(*common, name="first")
    other, _ = run_train("--max_steps", "1", name="other")
    kept = (other / "metrics.json").read_text()
    one, two, _ = list_checkpoints(first / "checkpoints")
    two.rename(first / "checkpoints" / "mine")
    run_train(*common, "--resume_from_checkpoint", str(first / "checkpoints" / "mine"), name="other")
    assert (tmp_path / "other.old-1" / "metrics.json").read_text() == kept
    expected = load_file(one / "model.safetensors")
    found = SentimentClassifier.from_pretrained(other / "model").state_dict()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


def test_one_checkpoint_kept_is_the_newest_or_the_best(run_train):
    run, _ = run_train("--num_train_epochs", "3", "--save_total_limit", "1", "--load_best_model_at_end", "False")
    steps = json.loads((run / "metrics.json").read_text())["training"]["steps"]
    assert [path.name for path in list_checkpoints(run / "checkpoints")][-1] == f"checkpoint-{steps}"


def test_final_model_is_the_best_one_not_the_last(run_train):
    # A rate that ruins the model after the first epoch: the last one is worse, or it would show nothing.
    run, _ = run_train("--num_train_epochs", "6", "--learning_rate", "0.05", "--lr_scheduler_type", "constant")
    metrics = json.loads((run / "metrics.json").read_text())
    state = json.loads(max(run.glob("checkpoints/*/trainer_state.json"), key=lambda p: len(p.read_text())).read_text())
    accuracies = [entry["eval_accuracy"] for entry in state["log_history"] if "eval_accuracy" in entry]
    assert metrics["val"]["accuracy"] == pytest.approx(max(accuracies))
    assert metrics["best"]["value"] == pytest.approx(max(accuracies))


def test_early_stop_holds_in_a_resume_until_the_patience_is_raised(run_train):
    # A rate of 0 never makes a better model.
    common = ["--learning_rate", "0", "--head_learning_rate", "0", "--num_train_epochs", "6"]
    resume = ["--resume_from_checkpoint", "latest"]
    for patience, flags, epochs in ((1, [], 2), (1, resume, 2), (3, resume, 4)):
        run, _ = run_train(*common, "--early_stopping_patience", str(patience), *flags)
        assert json.loads((run / "metrics.json").read_text())["training"]["epochs"] == epochs
