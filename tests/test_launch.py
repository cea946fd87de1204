"""The entries as a user starts them: real processes, one and two ranks, from training to predictions."""

import json

import pytest
import torch
from launching import launch, launcher, load_weights, logged_losses, needs_compiler, train_flags
from tiny import LABELS

ONE_PROCESS = launcher("single_gpu")
TWO_RANKS = ["torchrun", "--nproc_per_node", "2", "--master_port", "29611"]


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """33 training pairs, 5 to predict; made by the project's own generator."""
    folder = tmp_path_factory.mktemp("sample")
    options = ["--num_pairs", "44", "--num_test", "5"]
    launch(["python"], "-m", "data_utils.sample", "--output_dir", str(folder / "pairs"), *options)
    return folder / "pairs"


def test_from_training_to_predictions(sample, tmp_path):
    run, output = tmp_path / "run", tmp_path / "predictions.txt"
    screen = launch(ONE_PROCESS, *train_flags(sample, run))
    assert "Warning" not in screen
    screen = launch(ONE_PROCESS, "evaluate.py", str(run))
    figures = json.loads((run / "evaluation_val.json").read_text())
    trained = json.loads((run / "metrics.json").read_text())["val"]
    assert figures["accuracy"] == trained["accuracy"]
    assert figures["macro_f1_interval"] == pytest.approx(trained["macro_f1_interval"])
    screen = launch(ONE_PROCESS, "evaluate.py", str(run), "--ablation")
    assert "text_only" in screen
    assert "image_only" in screen
    asked = sample / "test_without_label.txt"
    launch(ONE_PROCESS, "evaluate.py", str(run), "--predict", str(asked), "--output", str(output))
    lines = [line.split(",") for line in output.read_text().splitlines()]
    assert [guid for guid, _ in lines] == [line.split(",")[0] for line in asked.read_text().splitlines()]
    assert {label for guid, label in lines if guid != "guid"} <= set(LABELS)


def test_two_ranks_train_as_one_process_with_the_same_global_batch(sample, tmp_path):
    common = ["--class_weights", "balanced", "--max_steps", "4"]
    one, two = tmp_path / "one", tmp_path / "two"
    launch(["python"], *train_flags(sample, one, *common, "--per_device_train_batch_size", "8"))
    screen = launch(TWO_RANKS, *train_flags(sample, two, *common, "--per_device_train_batch_size", "4"))
    assert logged_losses(two) == pytest.approx(logged_losses(one), abs=1e-5)
    assert len(set(logged_losses(one))) == 4
    for result in ("accuracy", "loss"):
        values = [json.loads((run / "metrics.json").read_text())["val"][result] for run in (one, two)]
        assert values[1] == pytest.approx(values[0], abs=1e-5)
    first, second = (load_weights(run) for run in (one, two))
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, atol=1e-5, rtol=1e-4)
    assert screen.count("pairs for training") == 1


@needs_compiler
def test_zero2_trains_as_one_process_and_saves_whole_weights(sample, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    launch(["python"], *train_flags(sample, one, "--max_steps", "3", "--per_device_train_batch_size", "8"))
    launch(launcher("zero2", 2), *train_flags(sample, two, "--max_steps", "3", "--per_device_train_batch_size", "4"))
    assert logged_losses(two) == pytest.approx(logged_losses(one), abs=1e-5)
    assert len(set(logged_losses(one))) == 3
    assert len(list(two.glob("checkpoints/checkpoint-3/global_step3/*optim_states.pt"))) == 2, "nothing was sharded"
    first, second = (load_weights(run) for run in (one, two))
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, atol=1e-5, rtol=1e-4)


def test_a_mistake_is_named_once_on_two_ranks(sample, tmp_path):
    screen = launch(TWO_RANKS, *train_flags(sample, tmp_path / "run", "--fusion", "atn"), code=1)
    assert screen.count("Did you mean attn") == 1
