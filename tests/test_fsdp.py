"""FSDP2 without a GPU: what accelerate does with fsdp2.yaml, on two CPU ranks."""

import json
import shutil

import pytest
import torch
from conftest import ROOT
from fsdp_program import CASES
from launching import launch, launcher, load_weights, logged_losses, train_flags

FSDP = launcher("fsdp2", 2)
PROGRAM = str(ROOT / "tests" / "fsdp_program.py")
EVERY_TWO = ["--save_strategy", "steps", "--eval_strategy", "steps", "--save_steps", "2", "--eval_steps", "2"]
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
        patch.setenv("PYTHONPATH", str(ROOT))
        yield


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    words = ["-m", "data_utils.sample", "--output_dir", str(folder / "pairs"), "--num_pairs", "44", "--num_test", "1"]
    launch(["python"], *words)
    return folder / "pairs"


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What both ranks found, by case."""
    folder = tmp_path_factory.mktemp("cases")
    launch(FSDP, PROGRAM, "cases", str(folder))
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("case", CASES)
def test_sharded_updates_equal_those_of_the_whole_model(ranks, case):
    for found in (rank[case] for rank in ranks):
        assert found["losses"] == pytest.approx(found["expected"], abs=1e-5)
        assert abs(found["losses"][-1] - found["losses"][0]) > 1e-3, "nothing was learned"


@pytest.mark.parametrize("case", CASES)
def test_each_layer_is_a_group_of_its_own_and_each_rank_holds_half(ranks, case):
    for found in (rank[case] for rank in ranks):
        assert set(found["groups"]) == SHARDED_AS_ONE[case] | {"SentimentClassifier"}
        assert found["whole parameters"] == 0
        assert found["whole moments"] == 0
        assert found["local share"] == pytest.approx(0.5, abs=0.05)
    assert sum(rank[case]["local share"] for rank in ranks) == pytest.approx(1)


@pytest.mark.parametrize("case", CASES)
def test_whole_weights_come_out_and_go_back_in(ranks, case):
    for found in (rank[case] for rank in ranks):
        assert found["before loading"] > 1e-3
        assert found["loaded back"] < 1e-5
        assert found["saved"] < 1e-5
    assert ranks[0][case]["keys on this rank"] > 10
    assert ranks[1][case]["keys on this rank"] == 0


def test_train_under_fsdp_equals_one_process_and_resumes(sample, tmp_path):
    one, two, resumed = (tmp_path / name for name in ("one", "two", "resumed"))
    common = ["--max_steps", "4", *EVERY_TWO]
    launch(["python"], *train_flags(sample, one, *common, "--per_device_train_batch_size", "8"))
    common += ["--per_device_train_batch_size", "4"]
    launch(FSDP, PROGRAM, "train", *train_flags(sample, two, *common)[1:])
    shutil.copytree(two, resumed)
    shutil.rmtree(resumed / "checkpoints" / "checkpoint-4")
    resume = ["--resume_from_checkpoint", "latest"]
    screen = launch(FSDP, PROGRAM, "train", *train_flags(sample, resumed, *common, *resume)[1:])
    assert "starts anew" not in screen
    weights = load_weights(one)
    for run in (two, resumed):
        assert logged_losses(run) == pytest.approx(logged_losses(one), abs=1e-5)
        for name, value in load_weights(run).items():
            torch.testing.assert_close(value, weights[name], atol=1e-5, rtol=1e-4)
    assert len(set(logged_losses(one))) == 4


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is an accelerator, where FSDP is allowed")
def test_fsdp_on_the_cpu_is_refused_once(sample, tmp_path):
    screen = launch(FSDP, *train_flags(sample, tmp_path / "run"), code=1)
    assert screen.count("asks for FSDP, but this machine has no accelerator") == 1
    assert screen.count("Traceback") == 1, "more than the launcher's own"
    assert not (tmp_path / "run").exists()
