"""train.py from the command line to the run folder, on generated pairs and a tiny model."""

import csv
import json
import re

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tiny import LABELS
from transformers import AutoImageProcessor, AutoTokenizer

import train
from data_utils.pictures import PictureSettings, decode_picture
from evaluation.run_folder import RunFolder
from modeling import SentimentClassifier
from training.checkpoints import list_checkpoints
from training.losses import classification_loss
from training.run import lock_run

TINY = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
TEXTS = {"negative": "a bad sad day number", "neutral": "a plain grey day number", "positive": "a good glad day number"}


@pytest.fixture
def sample(make_pairs):
    """60 pairs whose text tells the label."""
    rows = [(str(number), LABELS[number % 3], f"{TEXTS[LABELS[number % 3]]} {number}") for number in range(60)]
    return make_pairs(rows)


@pytest.fixture
def run_train(sample, tmp_path, caplog):
    """Run train.py's main on the sample; returns the run folder and the screen's text."""

    def run(*flags, name="run", data_dir=sample, text_config=TINY):
        argv = ["--data_dir", str(data_dir), "--cache_dir", str(tmp_path / "cache")]
        argv += [] if name is None else ["--output_dir", str(tmp_path / name)]
        argv += ["--from_scratch", "--text_config", json.dumps(text_config)]
        argv += ["--vision_config", json.dumps(TINY | {"patch_size": 16})]
        argv += ["--image_size", "32", "--max_length", "16", "--preprocessing_num_workers", "1"]
        argv += ["--num_train_epochs", "1", "--learning_rate", "1e-3", "--report_to", "none"]
        caplog.clear()
        train.main([*argv, *flags])
        return name and tmp_path / name, caplog.text

    return run


def fails(run_train, capfd, *flags, code=2, **options):
    """The one sentence with which train.py ends."""
    with pytest.raises(SystemExit) as ending:
        run_train(*flags, **options)
    assert ending.value.code == code
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def logged_losses(run):
    state = json.loads(next(run.glob("checkpoints/checkpoint-*/trainer_state.json")).read_text())
    return [entry["loss"] for entry in state["log_history"] if "loss" in entry]


def read_csv(path):
    return list(csv.DictReader(path.open(encoding="utf-8", newline="")))


@pytest.mark.parametrize("architecture", ["baseline", "vilbert", "clip"])
def test_run_folder_is_complete_and_loads_offline(run_train, sample, architecture):
    run, screen = run_train("--model", architecture)
    names = {path.name for path in run.iterdir()}
    assert names >= {"config.yaml", "model", "split.json", "metrics.json", "predictions_val.csv", "bad_cases.csv"}
    assert "quarantine.csv" in names
    metrics = json.loads((run / "metrics.json").read_text())
    predictions = read_csv(run / "predictions_val.csv")
    correct = [row["label"] == row["prediction"] for row in predictions]
    assert metrics["val"]["accuracy"] == pytest.approx(sum(correct) / len(correct))
    low, high = metrics["val"]["accuracy_interval"]
    assert 0 <= low <= metrics["val"]["accuracy"] <= high <= 1
    assert len(read_csv(run / "bad_cases.csv")) == correct.count(False)
    split = json.loads((run / "split.json").read_text())
    assert [row["guid"] for row in predictions] == sorted(split["val"], key=int)
    assert len(split["train"]) + len(split["val"]) == 60
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"]["model"] == architecture
    assert config["environment"]["versions"]["torch"] == torch.__version__
    model = SentimentClassifier.from_pretrained(run / "model")
    assert sum(p.numel() for p in model.parameters()) == metrics["parameters"]["total"]
    tokenizer = AutoTokenizer.from_pretrained(run / "model")
    assert tokenizer("a good day")["input_ids"][0] == tokenizer.cls_token_id
    assert "parameters" in screen
    assert "accuracy" in screen


@pytest.mark.parametrize(("architecture", "mode"), [("clip", "squash"), ("vilbert", "shortest")])
def test_saved_processor_prepares_a_picture_as_training_did(run_train, photo, tmp_path, architecture, mode):
    run, _ = run_train("--model", architecture, "--max_steps", "1")
    model = SentimentClassifier.from_pretrained(run / "model")
    picture = photo("p", (90, 57))
    path = tmp_path / "picture.png"
    picture.save(path)
    settings = PictureSettings.from_dict(model.config.picture)
    assert settings.resize_mode == mode
    ours = model.normalize(torch.from_numpy(decode_picture(path.read_bytes(), settings))[None])
    theirs = AutoImageProcessor.from_pretrained(run / "model", backend="pil")(picture, return_tensors="pt")
    torch.testing.assert_close(ours, theirs["pixel_values"], atol=1e-2, rtol=0)


def test_same_seed_gives_the_same_run_and_another_seed_another(run_train):
    runs = [
        run_train("--seed", seed, "--max_steps", "3", name=name)[0] for name, seed in zip("abc", "778", strict=True)
    ]
    probabilities = [(run / "predictions_val.csv").read_text() for run in runs]
    assert probabilities[0] == probabilities[1] != probabilities[2]


def test_easy_text_is_learned(run_train):
    flags = ["--learning_rate", "1e-2", "--num_train_epochs", "20"]
    run, _ = run_train("--model", "vilbert", "--fusion", "text_only", *flags)
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["val"]["accuracy"] == 1.0
    assert metrics["best"]["value"] == 1.0
    assert metrics["parameters"]["image"] == 0


def test_final_model_is_the_best_one_not_the_last(run_train):
    # A rate that ruins the model after the first epoch: the last one is worse, or it would show nothing.
    run, _ = run_train("--num_train_epochs", "6", "--learning_rate", "0.05", "--lr_scheduler_type", "constant")
    metrics = json.loads((run / "metrics.json").read_text())
    state = json.loads(max(run.glob("checkpoints/*/trainer_state.json"), key=lambda p: len(p.read_text())).read_text())
    accuracies = [entry["eval_accuracy"] for entry in state["log_history"] if "eval_accuracy" in entry]
    assert metrics["val"]["accuracy"] == pytest.approx(max(accuracies))
    assert metrics["best"]["value"] == pytest.approx(max(accuracies))


@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_accumulation_gives_the_losses_of_one_large_batch(run_train, weights):
    common = ["--class_weights", weights, "--max_steps", "4", "--logging_steps", "1", "--fusion_dropout", "0"]
    common += ["--model", "clip", "--save_strategy", "steps", "--save_steps", "4", "--eval_strategy", "no"]
    large, _ = run_train(*common, "--per_device_train_batch_size", "12", name="large")
    small, _ = run_train(
        *common, "--per_device_train_batch_size", "3", "--gradient_accumulation_steps", "4", name="small"
    )
    assert logged_losses(small) == pytest.approx(logged_losses(large), abs=1e-5)
    assert len(set(logged_losses(large))) == 4


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


@pytest.mark.parametrize(
    ("flags", "named"), [(["--seed", "43"], "split"), (["--max_length", "12"], "max_length"), ([], "data")]
)
def test_resuming_on_other_rows_is_refused(run_train, sample, capfd, flags, named):
    run_train("--max_steps", "2", "--save_strategy", "steps", "--save_steps", "2", "--eval_strategy", "no")
    if not flags:
        (sample / "data" / "3.txt").write_text("something else")
    sentence = fails(run_train, capfd, "--resume_from_checkpoint", "latest", *flags)
    assert named in sentence
    assert "would be wrong" in sentence


def test_default_run_folder_is_named_by_model_and_fusion(run_train, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    argv = ["--config", str(tmp_path / "recipe.yaml"), "--max_steps", "1", "--fusion", "late"]
    (tmp_path / "recipe.yaml").write_text("model: vilbert")
    run_train(*argv, name=None)
    assert (tmp_path / "runs" / "vilbert-late" / "metrics.json").is_file()


def test_folder_of_other_files_is_left_alone(run_train, capfd, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    (tmp_path / "run" / "config.yaml").write_text("title: mine")
    assert "holds other files (config.yaml" in fails(run_train, capfd)
    assert (tmp_path / "run" / "thesis.tex").read_text() == "years of work"


def test_run_folder_of_a_living_job_is_refused(run_train, capfd, tmp_path):
    with lock_run(RunFolder(tmp_path / "run")):
        assert "Another job" in fails(run_train, capfd)


def test_evaluation_keeps_its_last_rows_when_training_drops_its_own(run_train):
    run, _ = run_train("--dataloader_drop_last", "true", "--per_device_eval_batch_size", "4")
    assert len(read_csv(run / "predictions_val.csv")) == 6


def test_infinite_gradient_stops_before_the_update(run_train, capfd, monkeypatch):
    monkeypatch.setattr("transformers.Trainer._clip_grad_norm", lambda self, model: torch.tensor(float("inf")))
    assert "gradient's norm is inf at step 1" in fails(run_train, capfd, code=1)


def test_earlier_run_is_moved_aside(run_train, tmp_path):
    first, _ = run_train("--max_steps", "1", "--seed", "1")
    kept = (first / "config.yaml").read_text()
    _, screen = run_train("--max_steps", "1", "--seed", "2")
    assert (tmp_path / "run.old-1" / "config.yaml").read_text() == kept
    assert "run.old-1" in screen


def test_second_run_decodes_nothing(run_train, monkeypatch):
    run_train("--max_steps", "1")

    def refuse(*args, **kwargs):
        raise AssertionError("decoded again")

    monkeypatch.setattr("data_utils.loading.decode_picture", refuse)
    run_train("--max_steps", "1", "--fusion", "late", name="second")


def test_training_without_validation_part(run_train):
    run, _ = run_train("--val_ratio", "0", "--max_steps", "2")
    assert json.loads((run / "metrics.json").read_text())["val"] is None
    assert not (run / "predictions_val.csv").exists()
    SentimentClassifier.from_pretrained(run / "model")


def test_recipe_gives_flags_and_the_command_line_wins(run_train, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model: vilbert\nfusion: late\nmax_steps: 1\nseed: 7\nlabel_smoothing_factor: 0.1\n")
    run, _ = run_train("--config", str(recipe), "--fusion", "early")
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert (config["model"]["model"], config["model"]["fusion"], config["training"]["seed"]) == ("vilbert", "early", 7)


def test_bad_rows_are_quarantined_and_the_rest_is_trained_on(run_train, sample):
    with (sample / "train.txt").open("a") as file:
        file.write("5,positive\n../x,positive\nnowhere,neutral\n7,Positive\n")
    (sample / "data" / "0.jpg").write_bytes(b"no picture")
    (sample / "data" / "1.txt").unlink()
    run, screen = run_train("--max_steps", "1")
    reasons = {(row["guid"], row["reason"]): row["action"] for row in read_csv(run / "quarantine.csv")}
    assert reasons["0", "unreadable_image"] == reasons["1", "missing_text"] == "masked"
    assert reasons["5", "duplicate_guid"] == reasons["../x", "invalid_guid"] == "dropped"
    assert ("nowhere", "missing_text") in reasons
    assert "unreadable_image: 1 masked" in screen


def test_non_finite_loss_stops_before_the_update_and_names_the_step(run_train, capfd, monkeypatch):
    calls = []

    def spoiled(*args, **kwargs):
        calls.append(1)
        return classification_loss(*args, **kwargs) * (float("nan") if len(calls) == 3 else 1)

    monkeypatch.setattr("training.objective.classification_loss", spoiled)
    assert "The loss is nan at step 3" in fails(run_train, capfd, code=1)
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--fusion", "atn"], "Did you mean attn"),
        (["--model", "blip"], "allowed are baseline, vilbert, clip"),
        (["--model", "baseline", "--text_name", "x"], "trained from scratch"),
        (["--text_config", "{"], "no JSON"),
        (["--fusoin", "attn"], "Did you mean --fusion"),
        (["--learning_rate", "fast"], "learning_rate"),
        (["--class_weights", "inverse"], "none, sqrt, balanced"),
        (["--modality_dropout", "0.7"], "0 to 0.5"),
        (["--max_length", "999"], "takes 2 to"),
        (["--image_size", "40"], "patches of 16 px"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--resume_from_checkpoint", "nowhere"], "no folder with a checkpoint.json"),
        (["--early_stopping_patience", "2", "--eval_strategy", "no"], "needs evaluations"),
        (["--text_config", '{"hidden_size": "128"}'], "hidden_size"),
        (["--vision_config", '{"patch_size": 0}'], "patches of 0 px"),
        (["--vision_config", '{"num_attention_heads": 0}'], "can't be built"),
        (["--split_file", "nowhere.json"], "nowhere.json"),
        (["--labels", "bad", "good"], "--labels"),
        (["--metric_for_best_model", "acuracy"], "accuracy"),
        (["--per_device_train_batch_size", "0"], "more than 0"),
        pytest.param(
            *(["--fp16"], "use --bf16"),
            marks=pytest.mark.skipif(torch.accelerator.is_available(), reason="has float16"),
        ),
    ],
)
def test_mistakes_end_with_one_clear_sentence(run_train, capfd, flags, expected):
    assert expected in fails(run_train, capfd, *flags)


def test_checkpoint_of_another_head_is_refused(run_train, capfd):
    run, _ = run_train("--model", "clip", "--fusion", "early", "--max_steps", "1")
    checkpoint = next(run.glob("checkpoints/checkpoint-*"))
    sentence = fails(run_train, capfd, "--fusion", "late", "--resume_from_checkpoint", str(checkpoint))
    assert re.search(r"fusion\.classifier_text.*--fusion", sentence)


def test_planted_leak_is_refused_and_let_through_by_its_flag(run_train, sample, capfd, tmp_path):
    text = (sample / "data" / "1.txt").read_text()
    (sample / "data" / "2.txt").write_text(text.upper())
    split = {"train": [str(n) for n in range(60) if n != 2], "val": ["2"]}
    (tmp_path / "split.json").write_text(json.dumps(split))
    flags = ["--split_file", str(tmp_path / "split.json"), "--max_steps", "1"]
    assert "--allow_leaky_split" in fails(run_train, capfd, *flags)
    run, screen = run_train(*flags, "--allow_leaky_split")
    assert "too good" in screen
    assert json.loads((run / "split.json").read_text())["val"] == ["2"]


def test_name_that_cannot_be_had_offline_gives_one_sentence_with_remedies(run_train, sample, capfd, tmp_path):
    argv = ["--model", "clip", "--data_dir", str(sample), "--output_dir", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as ending:
        train.main(argv)
    assert ending.value.code == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    for word in ("openai/clip-vit-base-patch32", "folder", "HF_HOME", "--from_scratch"):
        assert word in error


def test_dry_run_names_all_that_is_missing_offline(sample, capfd, tmp_path):
    names = ["--text_name", "nobody/text", "--vision_name", "nobody/vision"]
    with pytest.raises(SystemExit) as ending:
        train.main(["--model", "vilbert", *names, "--data_dir", str(sample), "--dry_run"])
    assert ending.value.code == 2
    sentence = capfd.readouterr().err
    assert sentence.count("neither a folder nor in the hub's cache") == 2
    assert sentence.count("Pass a folder that holds the model") == 1


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


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--save_only_model", "True"], "no optimizer or schedule to go on with"),
        (["--max_train_samples", "30"], "The rows or their order differ"),
    ],
)
def test_resuming_what_cannot_go_on_is_refused(run_train, capfd, flags, expected):
    rhythm = ["--max_steps", "2", "--save_strategy", "steps", "--save_steps", "2", "--eval_strategy", "no"]
    run_train(*rhythm, *flags)
    assert expected in fails(run_train, capfd, *rhythm, "--resume_from_checkpoint", "latest")


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
