"""The models of a cross-validated run as one model: it answers as they do on average, here and without this project."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from alone import ask
from conftest import LABELS, ONE_EPOCH, SMALL, read_csv
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from tiny import TOKENIZER, save_encoders, tiny_arguments, tiny_batch, tiny_plan

import train
from modeling.batch import batch_loss
from modeling.choices import PROBLEM_TYPES
from modeling.ensemble import SentimentEnsemble
from modeling.publish import list_files
from training.build.build import build_model

LABELS_OF_ROWS = {
    "single_label": torch.tensor([0, 2, -100, 1]),
    "multi_label": torch.tensor([[1.0, 0, 1], [0, 0, 0], [torch.nan] * 3, [1, 1, 1]]),
    "regression": torch.tensor([1.0, torch.nan, 3, 2]),
}


@pytest.mark.parametrize("task", PROBLEM_TYPES)
def test_ensemble_answers_with_the_mean_and_keeps_a_shared_tower_once(task, tmp_path) -> None:
    arguments, labels = tiny_arguments("clip", "co_attn", freeze="image"), LABELS[: 1 if task == "regression" else 3]
    options = {"tokenizer": TOKENIZER, "labels": labels, "text_cleaning": "report", "task": task}
    models = []
    for number in range(3):
        torch.manual_seed(number)
        models.append(build_model(tiny_plan(arguments), arguments, **options).eval())
        models[-1].image_tower.load_state_dict(models[0].image_tower.state_dict())
        config = models[-1].config
        config.temperature, config.label_mean, config.label_std = 0.5 + number, number, number + 0.1
        config.thresholds = [0.1 * number] * 3 if task == "multi_label" else None
    batch = tiny_batch()
    batch["text_present"][1] = batch["image_present"][2] = False
    with torch.no_grad():
        expected = torch.stack([model.probabilities(model(**batch).logits) for model in models]).mean(dim=0)
        SentimentEnsemble.of(models, ["image"]).save_pretrained(tmp_path, max_shard_size="20KB")
        loaded = SentimentEnsemble.from_pretrained(tmp_path)
        output = loaded(**batch, labels=LABELS_OF_ROWS[task])
    assert torch.allclose(loaded.probabilities(output.logits), expected, rtol=0, atol=1e-6)
    assert output.loss.item() == pytest.approx(batch_loss(loaded.config, output.logits, LABELS_OF_ROWS[task]).item())
    if task == "multi_label":
        assert loaded.config.thresholds == pytest.approx([0.1] * 3)
    shards = list(tmp_path.glob("*.safetensors"))
    keys = [key for path in shards for key in load_file(path)]
    assert len(shards) > 1
    assert {key.split(".")[1] for key in keys if ".image_tower." in key} == {"0"}
    assert {key.split(".")[1] for key in keys if ".text_tower." in key} == {"0", "1", "2"}


def test_cross_validated_run_is_one_folder_that_stands_alone(sample, evaluate_main, refusal, tmp_path) -> None:
    save_encoders(tmp_path / "encoders")
    towers = ["--model", "vilbert", "--fusion", "early", "--freeze", "both", "--modality_dropout", "0.2"]
    names = [f"--{kind}_name={tmp_path}/encoders/{folder}" for kind, folder in (("text", "text"), ("vision", "vision"))]
    run, files = tmp_path / "run", ["--data_dir", str(sample), "--cache_dir", str(tmp_path / "cache")]
    folds = ["--folds", "2", "--val_ratio", "0", "--output_dir", str(run)]
    train.main([*towers, *names, *files, *folds, *SMALL, *ONE_EPOCH])
    evaluate_main(run, "--export", "transformers")
    folder = run / "export" / "transformers"

    guids = [str(number) for number in range(8)]
    (sample / "data" / "3.jpg").unlink()
    asked = tmp_path / "asked.txt"
    asked.write_text("guid,tag\n" + "".join(f"{guid},null\n" for guid in guids))
    evaluate_main(run, "--predict", asked, "--output", tmp_path / "answers.txt", "--data_dir", sample)
    found = read_csv(tmp_path / "answers.probabilities.csv")
    expected = [[float(row[f"prob_{label}"]) for label in LABELS] for row in found]
    pictures = {guid: sample / "data" / f"{guid}.jpg" for guid in guids}
    rows = [
        {
            "text": (sample / "data" / f"{guid}.txt").read_text(),
            "image": str(picture) if picture.exists() else None,
        }
        for guid, picture in pictures.items()
    ]
    (answers,) = ask([folder], rows, tmp_path)
    assert answers["labels"] == [*LABELS]
    assert np.abs(np.array(answers["model"]) - expected).max() <= 1e-6
    assert [each[0]["label"] for each in answers["batches"]] == [row["prediction"] for row in found]

    assert {key.split(".")[1] for key in load_file(folder / "model.safetensors") if "_tower." in key} == {"0"}
    assert {*list_files(folder), "export.json"} == {path.name for path in folder.iterdir()}
    assert not [path.name for path in folder.iterdir() if str(tmp_path).encode() in path.read_bytes()]
    card = ModelCard.load(folder / "README.md")
    averaged = json.loads((run / "metrics.json").read_text())["out_of_fold"]["averaged"]
    (accuracy,) = [each for each in card.data.eval_results if each.metric_type == "accuracy"]
    assert (accuracy.metric_value, accuracy.dataset_split) == (pytest.approx(averaged["accuracy"]), "out of fold")
    assert "2 models" in card.text

    where = ["--export", "transformers", "--output"]
    for taken in (sample, run / "members" / "seed-42-fold-0" / "model"):
        assert "name another --output" in refusal(evaluate_main, run, *where, taken)
    evaluate_main(run, "--export", "transformers")  # one that it wrote itself
    member = run / "members" / "seed-42-fold-0"
    assert "such a folder already" in refusal(evaluate_main, member, "--export", "transformers")
    settings = json.loads((member / "model" / "config.json").read_text())
    (member / "model" / "config.json").write_text(json.dumps(settings | {"max_length": 8}))
    assert "take different inputs" in refusal(evaluate_main, run, "--export", "transformers")
