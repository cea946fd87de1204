"""Robustness on a run of a tiny model: every condition is what it says, and the clean one is the plain evaluation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from conftest import read_csv
from datasets import Dataset
from evaluating import LABELS, NUM_PAIRS, save_run, write_pairs
from PIL import Image

from data_utils.prepare.pairs import add_row_index
from evaluation.predict.inference import classify, run_inference
from evaluation.predict.loaded_run import LoadedRun, load_run
from evaluation.robustness.corruptions import make_generator, mistype
from evaluation.robustness.robustness import (
    CLEAN,
    CONDITIONS,
    FAMILIES,
    AskCorrupted,
    Condition,
    conditions_of,
    draw_robustness,
    format_robustness,
    lose_modalities,
    summarise_robustness,
    write_robustness,
)
from evaluation.scores.scoring import score_predictions
from evaluation.tasks.ablation import ABLATION, AskInputs, blank_batch
from modeling.classifier import SentimentClassifier
from modeling.ensemble import JointModels

pytestmark = pytest.mark.usefixtures("fresh_state")

NUM_ROWS = 14
WORDS = ["good", "bad", "day", "plain", "some", "words", "@user", "so"]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder whose pictures have texture and whose texts have names; p3 has no text and p5 no picture."""
    folder, rng = tmp_path_factory.mktemp("pairs"), np.random.default_rng(0)
    write_pairs(folder)
    for number in range(NUM_PAIRS):
        picture = Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8))
        picture.save(folder / "data" / f"p{number}.jpg")
        (folder / "data" / f"p{number}.txt").write_text(" ".join(rng.choice(WORDS, rng.integers(2, 9))))
    (folder / "data" / "p3.txt").unlink()
    (folder / "data" / "p5.jpg").unlink()
    return folder


@pytest.fixture
def load(pairs: Path, tmp_path: Path) -> Callable[..., tuple[LoadedRun, SentimentClassifier, Dataset]]:
    """Factory of a run as train.py leaves it: the run, its model and the first of its validation rows."""

    def build(fusion: str) -> tuple[LoadedRun, SentimentClassifier, Dataset]:
        run = load_run(save_run(tmp_path / fusion, pairs, fusion=fusion).path)
        return run, run.load_model(), add_row_index(run.load_split_rows("val").select(range(NUM_ROWS)))

    return build


def measure(
    model: SentimentClassifier, run: LoadedRun, rows: Dataset, *, batch_size: int = 4, seed: int = 0
) -> dict[Condition, torch.Tensor]:
    options = {"batch_size": batch_size, "accelerator": Accelerator(cpu=True)}
    found = run_inference(JointModels([model]), rows, run.collator, step=AskCorrupted(run, rows, seed=seed), **options)
    return {condition: found[condition.name][:, 0] for condition in CONDITIONS}


def as_batch(run: LoadedRun, rows: Dataset) -> dict[str, torch.Tensor]:
    return run.collator([rows[index] for index in range(len(rows))])


def count_changed(found: torch.Tensor, other: torch.Tensor) -> int:
    return int(((found - other).abs().amax(dim=1) > 1e-5).sum())


@pytest.mark.parametrize("fusion", ["attn", "co_attn", "text_only", "image_only"])
def test_conditions_are_the_forwards_they_stand_for(load, fusion: str) -> None:
    run, model, rows = load(fusion)
    found = measure(model, run, rows)
    accelerator = Accelerator(cpu=True)
    options = {"batch_size": 4, "accelerator": accelerator}
    plain = run_inference(model, rows, run.collator, step=classify, **options)["probabilities"]
    assert torch.equal(found[CLEAN], plain)
    step = AskInputs(ABLATION, blank_batch(run.collator, run.tokenizer))
    ablation = run_inference(JointModels([model]), rows, run.collator, step=step, **options)
    for family, name in (("missing_text", "image_only"), ("missing_image", "text_only")):
        torch.testing.assert_close(found[Condition(family, 100)], ablation[name][:, 0], atol=1e-5, rtol=0)

    draws = [make_generator(0, guid, "missing").random() for guid in rows["guid"]]
    batch = as_batch(run, rows)
    for condition in (Condition("mixed", 75), Condition("missing_text", 50)):
        no_text, no_image = map(torch.from_numpy, lose_modalities(condition, draws))
        kept = {"text_present": batch["text_present"] & ~no_text, "image_present": batch["image_present"] & ~no_image}
        expected = classify(model, batch | kept)["probabilities"].detach()
        torch.testing.assert_close(found[condition], expected, atol=1e-5, rtol=0)

    unread = {"text_only": ("missing_image", "blur", "noise", "jpeg"), "image_only": ("missing_text", "typos")}
    for condition in conditions_of(*unread.get(fusion, ())):
        assert torch.equal(found[condition], plain)
    for family in FAMILIES.keys() - set(unread.get(fusion, ())):
        assert count_changed(found[conditions_of(family)[-1]], plain) >= NUM_ROWS // 3


def test_a_batch_is_encoded_once_for_all_missing_modalities(load) -> None:
    run, model, rows = load("attn")
    calls = {"text_tower": 0, "image_tower": 0}
    for name in calls:
        counter = lambda *_, name=name: calls.__setitem__(name, calls[name] + 1)  # noqa: E731
        getattr(model, name).register_forward_hook(counter)
    measure(model, run, rows, batch_size=7)
    assert calls == {"text_tower": 2 * (1 + 3), "image_tower": 2 * (1 + 12)}


def test_worse_inputs_are_those_that_the_model_would_get(load) -> None:
    """The pictures' answers are those of a data set with the noisy pixels, the texts' those of the mistyped texts."""
    run, model, rows = load("attn")
    found = measure(model, run, rows)
    batch = as_batch(run, rows)
    noisy = batch["pixel_values"].clone()
    for index, guid in enumerate(rows["guid"]):
        noise = make_generator(0, guid, "noise").standard_normal(noisy.shape[1:], dtype=np.float32)
        noisy[index] = torch.from_numpy(np.rint(noisy[index].numpy() + 32 * noise).clip(0, 255).astype(np.uint8))
    expected = classify(model, batch | {"pixel_values": noisy})["probabilities"].detach()
    torch.testing.assert_close(found[Condition("noise", 32)], expected, atol=1e-5, rtol=0)

    texts = [
        mistype(text, 50, make_generator(0, guid, "typos"))
        for guid, text in zip(rows["guid"], rows["text"], strict=True)
    ]
    tokens = run.tokenizer(texts, truncation=True, max_length=12, padding=True, return_tensors="pt")
    inputs = {name: tokens[name] for name in ("input_ids", "attention_mask")}
    expected = classify(model, batch | inputs)["probabilities"].detach()
    torch.testing.assert_close(found[Condition("typos", 50)], expected, atol=1e-5, rtol=0)


def test_what_a_row_never_had_is_not_corrupted(load) -> None:
    run, model, rows = load("attn")
    found = measure(model, run, rows)
    no_text, no_image = rows["guid"][:].index("p3"), rows["guid"][:].index("p5")
    for condition in conditions_of("typos", "missing_text"):
        assert count_changed(found[condition][[no_text]], found[CLEAN][[no_text]]) == 0
    for condition in conditions_of("blur", "noise", "jpeg", "missing_image"):
        assert count_changed(found[condition][[no_image]], found[CLEAN][[no_image]]) == 0


def test_answers_depend_on_seed_and_guid_alone(load) -> None:
    run, model, rows = load("co_attn")
    found = measure(model, run, rows)
    apart = [11, 2, 7, 5]
    others = measure(model, run, add_row_index(rows.select(apart)), batch_size=3)
    reseeded = measure(model, run, rows, seed=1)
    for condition in CONDITIONS:
        torch.testing.assert_close(others[condition], found[condition][apart], atol=1e-5, rtol=0)
        family_has_draws = condition.family not in ("clean", "blur", "jpeg") and condition.level != 100
        assert (count_changed(reseeded[condition], found[condition]) > 0) == (
            family_has_draws or condition == Condition("mixed", 100)
        ), condition


def test_lost_rows_are_nested_and_a_mixture_never_takes_both() -> None:
    draws = [make_generator(0, str(guid), "missing").random() for guid in range(4000)]
    for family in ("missing_text", "missing_image", "mixed"):
        previous = np.zeros((2, 4000), dtype=bool)
        for condition in conditions_of(family):
            lost = np.stack(lose_modalities(condition, draws))
            assert (lost >= previous).all()
            assert lost.any(axis=0).mean() == pytest.approx(condition.level / 100, abs=0.03)
            assert not lost.all(axis=0).any()
            previous = lost
        assert previous.any(axis=0).all()
        expected = {"missing_text": (1, 0), "missing_image": (0, 1), "mixed": (0.5, 0.5)}[family]
        assert previous.mean(axis=1) == pytest.approx(expected, abs=0.03)


def make_probabilities(num_rows: int = 60) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Answers that get worse with the level of every family but typos, which changes nothing."""
    rng = np.random.default_rng(0)
    labels = rng.choice(3, num_rows, p=[0.5, 0.3, 0.2])
    sure, wrong = np.eye(3)[labels] * 0.7 + 0.1, np.eye(3)[(labels + 1) % 3] * 0.7 + 0.1
    found = {}
    for condition in CONDITIONS:
        levels = [CLEAN, *conditions_of(condition.family)] if condition != CLEAN else [CLEAN]
        part = 0 if condition.family == "typos" else levels.index(condition) / 5
        found[condition.name] = np.where(np.arange(num_rows)[:, None] < part * num_rows, wrong, sure)
    return found, labels


@pytest.fixture(scope="module")
def summary() -> dict[str, Any]:
    """Of `make_probabilities`."""
    return summarise_robustness(*make_probabilities(), LABELS)


def test_summary_holds_the_scores_of_every_condition_and_says_what_is_odd(summary: dict[str, Any]) -> None:
    probabilities, labels = make_probabilities()
    assert list(summary["conditions"]) == [condition.name for condition in CONDITIONS]
    for condition in (CLEAN, Condition("jpeg", 25)):
        metrics = dict(summary["conditions"][condition.name])
        assert (metrics.pop("family"), metrics.pop("level")) == (condition.family, condition.level)
        assert metrics == score_predictions(probabilities[condition.name], labels, LABELS)
    accuracies = [summary["conditions"][each.name]["accuracy"] for each in conditions_of("mixed")]
    assert accuracies == pytest.approx([0.8, 0.6, 0.4, 0.2, 0.0])
    beaten, unchanged = summary["remarks"]
    assert f"always answering {LABELS[0]}" in beaten
    assert beaten.endswith("; mixed 50, 75, 100; blur 2, 4; noise 32, 64; jpeg 25, 10.")
    assert unchanged.startswith("No answer changes under typos:")


def test_rows_without_a_label_are_left_out_of_the_summary() -> None:
    probabilities, labels = make_probabilities()
    part = summarise_robustness({key: value[:40] for key, value in probabilities.items()}, labels[:40], LABELS)
    labels[40:] = -100
    assert summarise_robustness(probabilities, labels, LABELS) == part
    assert part["num_rows"] == 40


def test_files_and_table_show_the_same_figures(summary: dict[str, Any], tmp_path: Path) -> None:
    write_robustness(tmp_path / "robustness.json", "val", summary)
    assert {path.name for path in tmp_path.iterdir()} == {f"robustness.{kind}" for kind in ("csv", "md", "png")}
    rows = read_csv(tmp_path / "robustness.csv")
    assert [row["condition"] for row in rows] == list(summary["conditions"])
    table = format_robustness(summary, title="validation")
    markdown = (tmp_path / "robustness.md").read_text()
    for row in rows:
        metrics = summary["conditions"][row["condition"]]
        assert [float(row[name]) for name in ("level", "accuracy", "macro_f1", "ece")] == [
            metrics[name] for name in ("level", "accuracy", "macro_f1", "ece")
        ]
        assert [float(row["macro_f1_low"]), float(row["macro_f1_high"])] == metrics["macro_f1_interval"]
        (line,) = (line for line in table.splitlines() if line.split()[:1] == [row["condition"]])
        assert f"{metrics['accuracy']:.3f} [" in line
        assert line.endswith(f"{metrics['ece']:.3f}")
        assert f"| {row['condition']} | {metrics['accuracy']:.3f} [" in markdown
    for remark in summary["remarks"]:
        assert remark in table
        assert remark in markdown


def test_picture_draws_every_condition_and_the_majority(summary: dict[str, Any]) -> None:
    panels = draw_robustness(summary).axes
    for family, axes in zip(FAMILIES, panels, strict=False):
        accuracy, macro_f1, ece, majority = axes.lines
        conditions = [CLEAN, *conditions_of(family)]
        for line, name in ((accuracy, "accuracy"), (macro_f1, "macro_f1"), (ece, "ece")):
            assert line.get_ydata() == pytest.approx([summary["conditions"][each.name][name] for each in conditions])
        assert list(accuracy.get_xdata())[1:] == list(FAMILIES[family].levels)
        assert majority.get_ydata()[0] == summary["majority_baseline"]["accuracy"]
        # From clean on the left to the strongest on the right, also where the level falls.
        drawn = axes.transData.transform(np.column_stack([accuracy.get_xdata(), accuracy.get_ydata()]))[:, 0]
        assert (np.diff(drawn) > 0).all()
    assert len(panels[len(FAMILIES)].get_legend().get_texts()) == 4
