"""train.py from the command line to the run folder, on generated pairs and a tiny model."""

import json
from importlib.metadata import version

import pytest
import torch
import yaml
from conftest import read_csv
from launching import logged_losses
from transformers import AutoTokenizer

from modeling.classifier import SentimentClassifier
from modeling.pictures import PictureSettings, decode_picture
from modeling.processor import SentimentProcessor

MODES = {"baseline": "shortest", "vilbert": "shortest", "clip": "squash"}


@pytest.mark.parametrize(("architecture", "mode"), MODES.items())
def test_run_folder_is_complete_and_loads_offline(run_train, photo, tmp_path, architecture, mode):
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
    assert (config["model"]["model"], config["training"]["output_dir"]) == (architecture, str(run))
    assert config["environment"]["versions"]["torch"] == version("torch")
    model = SentimentClassifier.from_pretrained(run / "model")
    assert sum(p.numel() for p in model.parameters()) == metrics["parameters"]["total"]
    tokenizer = AutoTokenizer.from_pretrained(run / "model")
    assert tokenizer("a good day")["input_ids"][0] == tokenizer.cls_token_id
    assert "parameters" in screen
    assert "accuracy" in screen
    # The saved processor prepares a picture as training did.
    picture = photo("p", (90, 57))
    picture.save(tmp_path / "picture.png")
    settings = PictureSettings(**model.config.picture)
    assert settings.resize_mode == mode
    expected = torch.from_numpy(decode_picture((tmp_path / "picture.png").read_bytes(), settings))[None]
    processor = SentimentProcessor.from_pretrained(run / "model")
    for source in (picture, tmp_path / "picture.png", str(tmp_path / "picture.png")):
        assert torch.equal(processor(images=source)["pixel_values"], expected)


def test_same_seed_gives_the_same_run_and_another_seed_another(run_train):
    runs = (run_train("--seed", seed, "--max_steps", "2", name=name)[0] for name, seed in ("a7", "b7", "c8"))
    first, same, other = ((run / "predictions_val.csv").read_text() for run in runs)
    assert first == same != other


def test_easy_text_is_learned(run_train):
    flags = ["--learning_rate", "1e-2", "--num_train_epochs", "20"]
    run, _ = run_train("--model", "vilbert", "--fusion", "text_only", *flags)
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["val"]["accuracy"] == 1.0
    assert metrics["best"]["value"] == 1.0
    assert metrics["parameters"]["image"] == 0


def test_accumulation_gives_the_losses_of_one_large_batch_and_rare_classes_count(run_train, sample):
    lines = (sample / "train.txt").read_text().splitlines()
    rare = [line for line in lines[1:] if not line.endswith("positive")][:12]
    positive = [line for line in lines if line.endswith("positive")]
    (sample / "uneven.txt").write_text("\n".join([lines[0], *positive, *rare]) + "\n")
    common = ["--train_file", "uneven.txt", "--max_steps", "3", "--logging_steps", "1", "--fusion_dropout", "0"]
    common += ["--model", "clip", "--save_strategy", "steps", "--save_steps", "3", "--eval_strategy", "no"]
    large, small = ["--per_device_train_batch_size", "12"], ["--per_device_train_batch_size", "3"]
    small += ["--gradient_accumulation_steps", "4"]
    balance = ["--class_weights", "balanced", "--logit_adjustment", "3"]
    plain, *balanced = (
        logged_losses(run_train(*common, *flags, name=f"run{number}")[0])
        for number, flags in enumerate((large, [*balance, *large], [*balance, *small]))
    )
    assert balanced[1] == pytest.approx(balanced[0], abs=1e-5)
    assert len({*plain.values(), *balanced[0].values()}) == 6
    assert abs(balanced[0][1] - plain[1]) > 0.1  # an untrained model answers all classes alike, which no longer are


def test_recipe_gives_flags_the_command_line_wins_and_both_name_the_run_folder(run_train, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = "model: vilbert\nfusion: early\nmax_steps: 1\nseed: 7\nlabel_smoothing_factor: 0.1\n"
    (tmp_path / "recipe.yaml").write_text(recipe)
    run_train("--config", str(tmp_path / "recipe.yaml"), "--fusion", "late", name=None)
    run = tmp_path / "runs" / "vilbert-late"
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert (config["model"]["model"], config["model"]["fusion"], config["training"]["seed"]) == ("vilbert", "late", 7)
    assert (run / "metrics.json").is_file()


def test_evaluation_keeps_its_last_rows_when_training_drops_its_own(run_train):
    run, _ = run_train("--dataloader_drop_last", "true", "--per_device_eval_batch_size", "4")
    assert len(read_csv(run / "predictions_val.csv")) == 6


def test_earlier_run_is_moved_aside_and_its_data_are_not_decoded_again(run_train, tmp_path, monkeypatch):
    first, _ = run_train("--max_steps", "1", "--seed", "1")
    kept = (first / "config.yaml").read_text()

    def refuse(*args, **kwargs):
        raise AssertionError("decoded again")

    monkeypatch.setattr("data_utils.prepare.loading.decode_picture", refuse)
    _, screen = run_train("--max_steps", "1", "--seed", "2", "--fusion", "late")
    assert (tmp_path / "run.old-1" / "config.yaml").read_text() == kept
    assert "run.old-1" in screen


def test_training_without_validation_part(run_train):
    run, _ = run_train("--val_ratio", "0", "--max_steps", "2")
    assert json.loads((run / "metrics.json").read_text())["val"] is None
    assert not (run / "predictions_val.csv").exists()
    SentimentClassifier.from_pretrained(run / "model")


@pytest.mark.parametrize(("kept", "fusion", "blank"), [("jpg", "image_only", False), ("txt", "text_only", True)])
def test_one_modality_is_trained_on_where_the_other_is_absent(run_train, sample, evaluate_main, kept, fusion, blank):
    for path in (sample / "data").iterdir():
        if path.suffix != f".{kept}":
            path.write_bytes(b"") if blank else path.unlink()
    run, _ = run_train("--fusion", fusion, "--max_steps", "2")
    evaluate_main(run)
    evaluate_main(run, "--predict", sample / "train.txt", "--output", run / "predicted.csv")
    assert len(read_csv(run / "predicted.csv")) == 60


@pytest.mark.parametrize("flags", [[], ["--folds", "2"]])
def test_class_without_a_training_row_is_named_once(run_train, sample, flags):
    path = sample / "train.txt"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if not line.endswith(",neutral\n")))
    _, screen = run_train("--max_steps", "1", *flags)
    assert screen.count("No row for training is labelled neutral: ") == 1
    _, screen = run_train("--max_steps", "1", "--labels", "negative", "positive", name="two_classes")
    assert "No row for training" not in screen


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
