"""Checkpoints of train.py: a resumed run equals a whole one, and the model that is kept is the best."""

import json

import pytest
import torch
from safetensors.torch import load_file

from modeling import SentimentClassifier
from training.checkpoints import list_checkpoints


def test_resumed_run_equals_the_uninterrupted_one(run_train):
    common = ["--model", "clip", "--num_train_epochs", "2", "--save_total_limit", "9"]
    whole, _ = run_train(*common, name="whole")
    part, _ = run_train(*common, "--early_stopping_patience", "0", name="part")
    checkpoints = sorted(part.glob("checkpoints/checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    checkpoints[-1].rename(part / "thrown_away")
    resumed, screen = run_train(*common, "--resume_from_checkpoint", "latest", name="part")
    assert f"Resuming from {checkpoints[0]}" in screen
    first, second = (SentimentClassifier.from_pretrained(run / "model").state_dict() for run in (whole, resumed))
    assert all(torch.equal(first[name], second[name]) for name in first)


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
