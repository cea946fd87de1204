"""FSDP2 without a GPU: what accelerate does with fsdp2.yaml, on two CPU ranks."""

import json

import pytest
import torch
from conftest import ROOT
from launches.fsdp_program import CASES
from launching import launch, launcher, load_weights, logged_losses, read_model_folder, train_flags
from safetensors.torch import load_file

import train

FSDP = launcher("fsdp2", 2)
PROGRAM = str(ROOT / "tests" / "launches" / "fsdp_program.py")
CLIP_TEXT, CLIP_IMAGE = {"CLIPTextEmbeddings", "CLIPEncoderLayer"}, {"CLIPVisionEmbeddings", "CLIPEncoderLayer"}
SHARDED_AS_ONE = {
    "baseline": {"BertEmbeddings", "BertLayer", "ViTEmbeddings", "ViTLayer", "TransformerLayer"},
    "vilbert": {"BertEmbeddings", "BertLayer", "ViTEmbeddings", "ViTLayer", "TransformerLayer"},
    "clip": CLIP_TEXT | CLIP_IMAGE | {"TransformerLayer"},
    "clip, frozen": CLIP_TEXT | CLIP_IMAGE | {"TransformerLayer"},
    "clip, one tower": CLIP_TEXT,
}


@pytest.fixture(scope="module", autouse=True)
def _programs_find_the_packages():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'tests'}")
        yield


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What both ranks found, by case."""
    folder = tmp_path_factory.mktemp("cases")
    launch(FSDP, PROGRAM, "cases", str(folder))
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("case", CASES)
def test_sharded_model_learns_as_the_whole_one_and_its_weights_come_out_and_go_back_in(ranks, case):
    for found in (rank[case] for rank in ranks):
        assert found["losses"] == pytest.approx(found["expected"], abs=1e-5)
        assert abs(found["losses"][-1] - found["losses"][0]) > 1e-3, "nothing was learned"
        assert set(found["groups"]) == SHARDED_AS_ONE[case] | {"SentimentClassifier"}
        assert (found["whole parameters"], found["whole moments"]) == (0, 0)
        assert found["local share"] == pytest.approx(0.5, abs=0.05)
        assert found["before loading"] > 1e-3
        assert max(found["loaded back"], found["saved"]) < 1e-5
    assert sum(rank[case]["local share"] for rank in ranks) == pytest.approx(1)
    assert ranks[0][case]["keys on this rank"] > 10
    assert ranks[1][case]["keys on this rank"] == 0


def test_train_under_fsdp_equals_one_process(sample, tmp_path):
    """Also: back to the best weights after a forward pass, and on from the checkpoint, sharded and whole."""
    steps = ["--max_steps", "4", "--eval_strategy", "steps", "--eval_steps", "2"]
    every, last = ["--save_strategy", "steps", "--save_steps", "2"], ["--load_best_model_at_end", "False"]
    # The best is the first: the loss falls from there.
    first = ["--metric_for_best_model", "loss", "--greater_is_better", "True", "--save_strategy", "best"]
    resume = ["--resume_from_checkpoint", str(tmp_path / "first" / "checkpoints" / "checkpoint-2")]

    def run_fsdp(name, *flags):
        flags = train_flags(sample, tmp_path / name, *steps, *flags, "--per_device_train_batch_size", "4")
        return launch(FSDP, PROGRAM, "train", *flags[1:])

    def run_alone(name, *flags):
        flags = train_flags(sample, tmp_path / name, *steps, *flags, "--per_device_train_batch_size", "8")
        train.main(flags[1:])

    run_alone("alone", *every, *last)
    run_fsdp("first", *first)
    assert [path.name for path in (tmp_path / "first" / "checkpoints").iterdir()] == ["checkpoint-2"]
    assert_equal(
        load_weights(tmp_path / "first"), load_file(tmp_path / "alone" / "checkpoints/checkpoint-2/model.safetensors")
    )
    assert "starts anew" not in run_fsdp("sharded", *every, *last, *resume)
    run_alone("whole", *every, *last, *resume)

    expected = logged_losses(tmp_path / "alone")
    assert len(set(expected.values())) == 4
    assert logged_losses(tmp_path / "sharded") == pytest.approx(expected, abs=1e-5)
    assert_equal(load_weights(tmp_path / "sharded"), load_weights(tmp_path / "alone"))
    assert read_model_folder(tmp_path / "sharded") == read_model_folder(tmp_path / "alone")
    # One process can't read FSDP's optimizer: its weights go on, which the next loss shows.
    assert logged_losses(tmp_path / "whole")[3] == pytest.approx(expected[3], abs=1e-5)


def assert_equal(found, expected):
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-4)
