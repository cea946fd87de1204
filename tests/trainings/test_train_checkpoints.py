"""Checkpoints of train.py: a resumed run equals a whole one, and the model that is kept is the best."""

import json
import shutil

import pytest
import torch
from launching import load_weights, logged_losses, train_flags
from safetensors.torch import load_file

import train
from data_utils.sample import main as draw_sample
from modeling.classifier import SentimentClassifier
from training.checkpoint import checkpoints
from training.checkpoint.checkpoints import list_checkpoints

# The loss falls, so the "best" is the first of three.
FLAGS = ["--num_train_epochs", "3", "--metric_for_best_model", "loss", "--greater_is_better", "True"]
FLAGS += ["--save_total_limit", "9", "--lr_scheduler_kwargs", '{"num_cycles": 0.4}']
LATEST = ["--resume_from_checkpoint", "latest"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of three epochs, to copy."""
    folder = tmp_path_factory.mktemp("checkpoints")
    draw_sample(["--output_dir", str(folder / "pairs"), "--num_pairs", "60"])
    words = train_flags(folder / "pairs", folder / "run", *FLAGS, "--head_learning_rate", "1e-3")
    train.main(words[1:])
    return folder / "run"


@pytest.fixture
def go_on(whole, tmp_path, caplog):
    """Train on in a copy of the run, or in another folder; returns the screen's text."""
    shutil.copytree(whole, tmp_path / "run")

    def run(*flags, name="run"):
        caplog.clear()
        train.main(train_flags(whole.parent / "pairs", tmp_path / name, *FLAGS, *flags)[1:])
        return caplog.text

    return run


def zero(file, start=0, length=None):
    """Overwrite bytes with zeros, by default all, as a machine that lost power leaves them."""
    content = bytearray(file.read_bytes())
    end = len(content) if length is None else start + length
    content[start:end] = bytes(end - start)
    file.write_bytes(content)


def assert_same(found, expected):
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


def test_final_model_is_the_best_one_not_the_last(whole):
    first, _, last = (load_file(path / "model.safetensors") for path in list_checkpoints(whole / "checkpoints"))
    assert_same(load_weights(whole), first)
    assert any(not torch.equal(first[name], last[name]) for name in first)
    state = json.loads((list_checkpoints(whole / "checkpoints")[-1] / "trainer_state.json").read_text())
    losses = [entry["eval_loss"] for entry in state["log_history"] if "eval_loss" in entry]
    metrics = json.loads((whole / "metrics.json").read_text())
    assert [metrics["best"]["value"], metrics["val"]["loss"]] == pytest.approx([max(losses)] * 2)


@pytest.mark.parametrize("damage", ["cut off", "zeroed in part", "zeroed"])
def test_damaged_checkpoint_is_passed_over_and_the_resumed_run_equals_the_whole_one(whole, go_on, tmp_path, damage):
    run = tmp_path / "run"
    _, good, last = list_checkpoints(run / "checkpoints")
    if damage == "cut off":
        (last / "trainer_state.json").unlink()
    elif damage == "zeroed":
        zero(last / "optimizer.pt")
    else:
        zero(last / "model.safetensors", 40_000, 4000)
    screen = go_on(*LATEST)
    assert f"{last} is incomplete or damaged" in screen
    assert f"Resuming from {good}" in screen
    assert logged_losses(run) == logged_losses(whole)
    assert_same(
        load_file(last / "model.safetensors"), load_file(whole / "checkpoints" / last.name / "model.safetensors")
    )
    assert_same(load_weights(run), load_weights(whole))
    told = json.loads((run / "metrics.json").read_text())["training"]
    rows = told["samples_per_second"] * told["seconds"]
    assert rows == pytest.approx(told["num_train_rows"], rel=0.01)  # of the one epoch that it trained


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


@pytest.mark.parametrize("names_flags", [True, False])
def test_finished_run_goes_on_for_more_epochs(go_on, tmp_path, names_flags):
    """With the flags of its updates, given or not; checkpoints of earlier versions don't name them."""
    for checkpoint in list_checkpoints(tmp_path / "run" / "checkpoints"):
        content = json.loads((checkpoint / checkpoints.MANIFEST).read_text())
        if not names_flags:
            del content["update_flags"]
        (checkpoint / checkpoints.MANIFEST).write_text(json.dumps(content))
    more = ["--num_train_epochs", "4", *LATEST]
    assert "Resuming from" in go_on(*more, *([] if names_flags else ["--weight_decay", "0.3"]))
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["training"]["epochs"] == 4


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


def test_resuming_in_another_folder_finds_the_best_and_spares_what_is_there(whole, go_on, tmp_path):
    assert "No checkpoint in" in go_on(*LATEST, "--max_steps", "1", name="empty")
    shutil.copytree(whole, tmp_path / "other")
    one, two, _ = list_checkpoints(tmp_path / "run" / "checkpoints")
    two.rename(two.with_name("mine"))
    go_on("--resume_from_checkpoint", str(two.with_name("mine")), name="other")
    assert (tmp_path / "other.old-1" / "metrics.json").read_text() == (whole / "metrics.json").read_text()
    assert_same(load_weights(tmp_path / "other"), load_file(one / "model.safetensors"))


def test_one_checkpoint_kept_is_the_newest_or_the_best(run_train):
    run, _ = run_train("--num_train_epochs", "3", "--save_total_limit", "1", "--load_best_model_at_end", "False")
    steps = json.loads((run / "metrics.json").read_text())["training"]["steps"]
    assert [path.name for path in list_checkpoints(run / "checkpoints")][-1] == f"checkpoint-{steps}"


def test_early_stop_holds_in_a_resume_until_the_patience_is_raised(run_train):
    # A rate of 0 never makes a better model.
    common = ["--learning_rate", "0", "--head_learning_rate", "0", "--num_train_epochs", "6"]
    resume = ["--resume_from_checkpoint", "latest"]
    for patience, flags, epochs in ((1, [], 2), (1, resume, 2), (3, resume, 4)):
        run, _ = run_train(*common, "--early_stopping_patience", str(patience), *flags)
        assert json.loads((run / "metrics.json").read_text())["training"]["epochs"] == epochs
