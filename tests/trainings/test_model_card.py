"""The card beside a saved model: what it says is what the run's files say, and nothing in the data can break it."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import markdown
from conftest import LABELS, ONE_EPOCH
from huggingface_hub import ModelCard
from tiny import save_encoders
from transformers import AutoConfig

import train
from run_files.run_folder import RunFolder
from training.build.plan import name_sources
from training.flags.model import ModelArguments
from training.runs.run import write_own_card

HOSTILE = ("<img src=x onerror=alert(1)>", "a|b `c` **d** _e_", "[x](javascript:alert(1)) # \\ & &lt;")


def read_card(run: Path, *, without: Path) -> tuple[ModelCard, str, dict[str, list[str]]]:
    """The card, its HTML, and the cells of its tables' rows by the first; no folder under `without` is in the model."""
    for path in (run / "model").iterdir():
        assert str(without).encode() not in path.read_bytes(), path.name
    card = ModelCard.load(run / "model" / "README.md")
    page = markdown.markdown(card.text, extensions=["tables", "fenced_code"])
    rows = [
        [html.unescape(re.sub("<.*?>", "", cell)) for cell in re.findall("<t[dh].*?>(.*?)</t[dh]>", row, re.DOTALL)]
        for row in re.findall("<tr>(.*?)</tr>", page, re.DOTALL)
    ]
    return card, page, {first: rest for first, *rest in rows}


def read_metrics(run: Path) -> dict:
    return json.loads((run / "metrics.json").read_text())


def test_hostile_labels_and_names_are_words_of_the_card(make_pairs, run_train, tmp_path) -> None:
    rows = [(str(row), HOSTILE[row % 3], f"words of {row % 3} and {row}") for row in range(40)]
    data = make_pairs([*rows, ("40", "null")], folder="<b>x|y")
    run, _ = run_train("--labels", *HOSTILE, data_dir=data)
    card, page, cells = read_card(run, without=tmp_path)
    metrics = read_metrics(run)
    for label in HOSTILE:
        figures = metrics["val"]["per_class"][label]
        assert cells[label][:2] == [str(metrics["training"]["label_counts"][label]), str(figures["support"])]
        assert cells[label][2] == f"{figures['precision']:.3f}"
    assert "<img" not in page
    assert "javascript:" not in re.sub(r"<td.*?>.*?</td>", "", page)
    assert cells["data"] == ["<b>x|y"]
    assert cells["faulty rows"] == ["1 no_label, dropped"]
    assert RunFolder(run).split_file.read_text().split('"sha256": "')[1][:64] in cells["split"][0]
    (result,) = [each for each in card.data.eval_results if each.metric_type == "accuracy"]
    assert (result.dataset_name, result.dataset_split) == ("<b>x|y", "validation")
    assert result.metric_value == metrics["val"]["accuracy"]
    assert card.data.pipeline_tag == "text-classification"
    assert card.data.get("license") is card.data.get("base_model") is card.data.get("datasets") is None


def test_card_of_each_fold_tells_its_temperature_and_held_out_rows(sample, run_train, tmp_path) -> None:
    run, _ = run_train("--folds", "2", "--val_ratio", "0")
    for fold in range(2):
        member = run / "members" / f"seed-42-fold-{fold}"
        card, page, cells = read_card(member, without=tmp_path)
        assert f"fold {fold} of a cross-validation" in page
        assert f"{AutoConfig.from_pretrained(member / 'model').temperature:.3f}" in page
        assert cells["accuracy"][0].startswith(f"{read_metrics(member)['test']['accuracy']:.3f} [")
        assert {each.dataset_split for each in card.data.eval_results} == {"held-out rows"}


def test_cards_of_other_tasks_of_shards_and_of_towers_from_folders(
    make_pairs, write_shards, run_train, tmp_path
) -> None:
    tags = ["food", "sport", "food|sport", "|"]
    rows = [(str(row), tags[row % 4], f"words of {tags[row % 4]} {row}") for row in range(40)]
    run, _ = run_train("--task", "multi_label", data_dir=make_pairs(rows, folder="tagged"), name="multi_label")
    _, page, cells = read_card(run, without=tmp_path)
    thresholds = AutoConfig.from_pretrained(run / "model").thresholds
    assert [cells[label][-1] for label in ("food", "sport")] == [f"{each:.3f}" for each in thresholds]
    assert "the best epoch and the thresholds" in page

    save_encoders(tmp_path / "encoders")
    towers = ["--model", "vilbert", "--fusion", "early", "--freeze", "text", "--image_size", "32", "--max_length", "16"]
    towers += [f"--text_name={tmp_path}/encoders/text", f"--vision_name={tmp_path}/encoders/vision", *ONE_EPOCH]
    numbers = make_pairs([(str(row), str(row % 7), f"words of {row}") for row in range(40)], folder="numbers")
    flags = ["--task", "regression", "--val_ratio", "0", "--data_dir", str(numbers)]
    train.main([*towers, *flags, "--output_dir", str(tmp_path / "none"), "--cache_dir", str(tmp_path / "cache")])
    card, page, cells = read_card(tmp_path / "none", without=tmp_path)
    assert (cells["rows"], card.data.eval_results) == (["40 training"], None)
    assert "No row was held out" in page
    assert cells["text tower"] == ["BertModel, frozen, from text"]
    run = RunFolder(tmp_path / "none")
    sections = run.load_arguments()
    sections["environment"]["sources"] = name_sources(ModelArguments(model="vilbert", vision_name="me/seer"))
    run.save_arguments(sections)
    write_own_card(run, AutoConfig.from_pretrained(run.model_dir))
    card, _, cells = read_card(run.path, without=tmp_path)
    assert card.data.base_model == ["bert-base-uncased", "me/seer"]
    assert cells["image tower"] == ["ViTModel, trained, from me/seer"]

    shards = write_shards([(str(row), LABELS[row % 3], f"words of {row % 3} and {row}") for row in range(40)])
    run, _ = run_train("--streaming", data_dir=shards, name="streamed")
    _, page, cells = read_card(run, without=tmp_path)
    assert cells["split"] == ["as the shards have it"]
    counts = read_metrics(run)["training"]["label_counts"]
    assert {label: cells[label][0] for label in LABELS} == {label: str(count) for label, count in counts.items()}
