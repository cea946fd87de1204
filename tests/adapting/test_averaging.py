"""--ema_decay: what is evaluated, chosen and saved is the moving average of the weights."""

import json

import pytest
import torch
from adapting.adapted_runs import RHYTHM, encoder_flags, go_back, last_logits, merged_logits
from launching import load_weights, logged_losses, train_flags
from safetensors.torch import load_file
from tiny import save_encoders

import train

DECAY = 0.75


@pytest.fixture
def run_average(sample, tmp_path):
    """Train the head and the text tower, with a checkpoint after each update; returns the run folder."""
    save_encoders(tmp_path)

    def run(*flags, name="run", decay=DECAY):
        each = ["--save_steps", "1", "--eval_steps", "1", "--save_total_limit", "99", "--ema_decay", str(decay)]
        words = train_flags(
            *(sample, tmp_path / name, *RHYTHM, *each, "--freeze", "image", "--learning_rate", "1e-2", *flags),
            model=encoder_flags(tmp_path),
        )
        train.main(words[1:])
        return tmp_path / name

    return run


def average_by_hand(run, last):
    """The average after the update `last`, from the weights in the checkpoints."""
    average = load_file(run / "checkpoints" / "checkpoint-1" / "model.safetensors")
    for step in range(2, last + 1):
        weights = load_file(run / "checkpoints" / f"checkpoint-{step}" / "model.safetensors")
        average = {name: DECAY * value + (1 - DECAY) * weights[name] for name, value in average.items()}
    return average


def test_best_average_is_saved_and_was_evaluated(run_average):
    run = run_average("--metric_for_best_model", "loss")
    state = json.loads((run / "checkpoints" / "checkpoint-6" / "trainer_state.json").read_text())
    losses = {entry["step"]: entry["eval_loss"] for entry in state["log_history"] if "eval_loss" in entry}
    best = json.loads((run / "metrics.json").read_text())["best"]
    assert best["value"] == min(losses.values())

    saved, expected = load_weights(run), average_by_hand(run, best["step"])
    trained = load_file(run / "checkpoints" / f"checkpoint-{best['step']}" / "average.safetensors")
    assert trained.pop("n_averaged") == best["step"]
    assert not any(name.startswith("image_tower.") for name in trained)
    for name, value in expected.items():
        torch.testing.assert_close(saved[name], value, atol=1e-6, rtol=1e-5)
        assert torch.equal(saved[name], trained.get(name, saved[name]))
    assert abs(last_logits(run) - merged_logits(run)).max() < 1e-5
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["val"]["loss"] == pytest.approx(best["value"], abs=1e-5)


def test_last_average_is_saved_where_no_model_is_the_best_and_updates_know_nothing_of_it(run_average):
    run = run_average("--load_best_model_at_end", "false")
    plain = run_average("--load_best_model_at_end", "false", name="plain", decay=0)

    assert logged_losses(run) == logged_losses(plain)
    saved = load_weights(run)
    for name, value in average_by_hand(run, 6).items():
        torch.testing.assert_close(saved[name], value, atol=1e-6, rtol=1e-5)
    assert not list(plain.rglob("average.safetensors"))


def test_finished_training_that_is_gone_on_with_saves_the_same_average(run_average, tmp_path):
    run = run_average("--load_best_model_at_end", "false")
    again = go_back(run, tmp_path / "again", to=6)
    run_average("--load_best_model_at_end", "false", "--resume_from_checkpoint", "latest", name="again")
    expected = load_weights(run)
    assert [name for name, value in load_weights(again).items() if not torch.equal(value, expected[name])] == []


def test_other_decay_is_refused_in_a_resume(run_average, refusal):
    run_average()
    sentence = refusal(run_average, "--resume_from_checkpoint", "latest", decay=0.5)
    assert "was trained with --ema_decay 0.75 (got 0.5)" in sentence


@pytest.mark.parametrize("decay", ["1", "-0.1", "nan"])
def test_decay_that_is_none_is_refused(run_average, refusal, decay):
    assert f"--ema_decay {float(decay)}; it takes 0 (off) to less than 1" in refusal(run_average, decay=decay)


def test_sweep_refuses_averages(refusal, tmp_path):
    save_encoders(tmp_path)
    recipe = tmp_path / "sweep.yaml"
    recipe.write_text("ema_decay: 0.9\nsweep:\n  seed: [1, 2]\n")
    words = ["--sweep", str(recipe), *encoder_flags(tmp_path), "--data_dir", str(tmp_path)]
    assert "Got --ema_decay 0.9, which a sweep can't do" in refusal(train.main, words)
