"""What train.py refuses or stops, each with one sentence: wrong flags, leaks, other people's folders, a loss of nan."""

import json
import os
import tempfile

import pytest
import torch

import train
from run_files.run_folder import RunFolder
from training.engine.objective import classification_loss
from training.launch.console import exit_on_user_error
from training.runs.claim import lock_run


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--model", "blip"], "allowed are baseline, vilbert, clip"),
        (["--model", "baseline", "--text_name", "x"], "trained from scratch"),
        (["--text_config", "{"], "no JSON"),
        (["--seed", "1", "-x"], "Got '-x', which is no flag of"),
        (["--image_size", "40"], "patches of 16 px"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--resume_from_checkpoint", "nowhere"], "no folder with a checkpoint.json"),
        (["--text_config", '{"hidden_size": "128"}'], "hidden_size"),
        (["--vision_config", '{"patch_size": 0}'], "patches of 0 px"),
        (["--vision_config", '{"num_attention_heads": 0}'], "can't be built"),
        (["--split_file", "nowhere.json"], "nowhere.json"),
        (["--labels", "bad", "good"], "--labels"),
        pytest.param(
            *(["--fp16"], "use --bf16"),
            marks=pytest.mark.skipif(torch.accelerator.is_available(), reason="has float16"),
        ),
    ],
)
def test_mistakes_end_with_one_clear_sentence(run_train, refusal, flags, expected):
    assert expected in refusal(run_train, *flags)


def test_optimizer_without_its_package_is_refused_with_its_name(run_train, refusal, monkeypatch):
    monkeypatch.setattr("transformers.trainer_optimizer.is_torch_optimi_available", lambda: False)
    sentence = refusal(run_train, "--optim", "stable_adamw")
    assert "Got --optim stable_adamw, which can't be had here (You need to install `torch-optimi`" in sentence


def test_ctrl_c_ends_with_one_sentence(capsys):
    with pytest.raises(SystemExit) as ending, exit_on_user_error():
        raise KeyboardInterrupt
    assert ending.value.code == 130
    assert capsys.readouterr().err.startswith("Stopped by Ctrl-C. A training goes on with ")


def test_name_that_cannot_be_had_offline_gives_one_sentence_with_remedies(run_train, sample, capfd, tmp_path):
    argv = ["--model", "clip", "--data_dir", str(sample), "--output_dir", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as ending:
        train.main(argv)
    assert ending.value.code == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    for word in ("openai/clip-vit-base-patch32", "folder", "HF_HOME", "--from_scratch"):
        assert word in error


def test_dry_run_names_all_that_is_missing_offline(sample, capfd, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    names = ["--text_name", "nobody/text", "--vision_name", "nobody/vision"]
    with pytest.raises(SystemExit) as ending:
        train.main(["--model", "vilbert", *names, "--data_dir", str(sample), "--dry_run"])
    assert ending.value.code == 2
    sentence = capfd.readouterr().err
    assert sentence.count("neither a folder nor in the hub's cache") == 2
    assert sentence.count("Pass a folder that holds the model") == 1
    assert not list((tmp_path / "temporary").iterdir())


def test_planted_leak_is_refused_and_let_through_by_its_flag(run_train, sample, refusal, tmp_path):
    text = (sample / "data" / "1.txt").read_text()
    (sample / "data" / "2.txt").write_text(text.upper())
    split = {"train": [str(n) for n in range(60) if n != 2], "val": ["2"]}
    (tmp_path / "split.json").write_text(json.dumps(split))
    flags = ["--split_file", str(tmp_path / "split.json"), "--max_steps", "1"]
    assert "--allow_leaky_split" in refusal(run_train, *flags)
    run, screen = run_train(*flags, "--allow_leaky_split")
    assert "too good" in screen
    assert json.loads((run / "split.json").read_text())["val"] == ["2"]


def test_folders_are_left_as_they_were(run_train, refusal, tmp_path):
    assert "takes 2 to" in refusal(run_train, "--max_length", "999")
    assert not (tmp_path / "run").exists()
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    refusal(run_train, "--max_length", "1")
    assert (tmp_path / "run" / "checkpoints").is_dir()  # not empty, so not its own to remove
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    (tmp_path / "run" / "config.yaml").write_text("title: mine")
    assert "holds other files (c" in refusal(run_train)
    assert (tmp_path / "run" / "thesis.tex").read_text() == "years of work"


def test_run_folder_whose_name_is_no_utf_8_is_refused_before_anything_is_made(run_train, refusal, tmp_path):
    assert "which is no name in UTF-8" in refusal(run_train, "--output_dir", f"{tmp_path}/\udcff")
    assert not os.path.exists(f"{tmp_path}/\udcff")


def test_run_folder_of_a_living_job_is_refused(run_train, refusal, tmp_path):
    with lock_run(RunFolder(tmp_path / "run")):
        assert "Another job" in refusal(run_train)


RHYTHM = ["--max_steps", "2", "--save_strategy", "steps", "--save_steps", "2", "--eval_strategy", "no"]


def test_going_on_with_another_model_other_rows_or_other_flags_is_refused(run_train, sample, refusal):
    run, _ = run_train(*RHYTHM, "--optim", "adamw_torch_fused")
    before = (run / "config.yaml").read_text()
    for words, named in {
        "--seed 43": ["The split differs"],
        "--max_length 12": ["--max_length differs"],
        "--max_train_samples 30": ["The rows or their order differ"],
        "--fusion late": ["fusion.classifier_text", "--fusion"],
        "--learning_rate 1e-2 --weight_decay 0.3": [
            *("--learning_rate 0.001 (got 0.01)", "--head_learning_rate 0.001 (got 0.01)"),
            "--weight_decay 0.0001 (got 0.3)",
        ],
        "--lr_scheduler_type constant --adam_beta2 0.9": ["_type cosine (got constant)", "0.999 (got 0.9)"],
        "--optim adamw_torch --class_weights sqrt": ["--class_weights none (got sqrt)"],
        "--optim sgd": ["--optim adamw_torch (got sgd)"],
    }.items():
        sentence = refusal(run_train, *RHYTHM, "--resume_from_checkpoint", "latest", *words.split())
        assert all(each in sentence for each in named), sentence
        got = sum("(got" in each for each in named)
        assert sentence.count("(got ") == got
        assert ("start a new run" in sentence) or "--fusion" in sentence
    (sample / "data" / "3.txt").write_text("something else")
    assert "The data, or how they are read, differ" in refusal(run_train, *RHYTHM, "--resume_from_checkpoint", "latest")
    assert (run / "config.yaml").read_text() == before


def test_checkpoint_without_optimizer_or_damaged_is_refused(run_train, refusal):
    run, _ = run_train(*RHYTHM, "--save_only_model", "True")
    sentence = refusal(run_train, *RHYTHM, "--resume_from_checkpoint", "latest")
    assert "no optimizer or schedule to go on with" in sentence
    checkpoint = next(run.glob("checkpoints/checkpoint-*"))
    state = checkpoint / "trainer_state.json"
    state.write_bytes(bytes(state.stat().st_size))
    sentence = refusal(run_train, "--resume_from_checkpoint", str(checkpoint))
    assert f"{checkpoint}', which is no folder with" in sentence
    assert "undamaged" in sentence


def test_non_finite_loss_stops_before_the_update_and_names_the_step(run_train, refusal, monkeypatch):
    calls = []

    def spoiled(*args, **kwargs):
        calls.append(1)
        return classification_loss(*args, **kwargs) * (float("nan") if len(calls) == 3 else 1)

    monkeypatch.setattr("training.engine.objective.classification_loss", spoiled)
    assert "The loss is nan at step 3" in refusal(run_train, code=1)
    assert len(calls) == 3


def test_infinite_gradient_stops_before_the_update(run_train, refusal, monkeypatch):
    monkeypatch.setattr("transformers.Trainer._clip_grad_norm", lambda self, model: torch.tensor(float("inf")))
    assert "gradient's norm is inf at step 1" in refusal(run_train, code=1)
