"""evaluate.py RUN --explain: which rows, what is written, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from evaluation.predict.ensemble import load_ensemble
from evaluation.reasons.explaining import explain_rows
from evaluation.tasks.session import join_ranks
from modeling.errors import InputError
from run_files.explanations import explanations_file, read_explanations

ROWS = 9


@pytest.fixture
def explained(tiny_run, evaluate_main):
    """The reasons for a few rows of a tiny run, and the figures beside them."""
    path = explanations_file(tiny_run.path, "val")
    if not path.exists():
        evaluate_main(tiny_run.path, "--explain", "--explain_rows", ROWS, "--explain_gradients")
    return read_explanations(path)


def test_misjudged_rows_are_explained_first(explained, tiny_run, evaluate_main):
    rows, _ = explained
    parts = load_ensemble(tiny_run.path).load_rows("val")
    labels = dict(zip(parts[0][1]["guid"][:], parts[0][1]["label"][:], strict=True))
    names = parts[0][0].label_names
    confidence = [row.probability if row.label != names[labels[row.guid]] else row.probability - 1 for row in rows]

    assert len(rows) == ROWS
    assert confidence == sorted(confidence, reverse=True)
    assert all(row.text.startswith(f"{row.guid} ") for row in rows)
    assert {np.shape(row.regions) for row in rows} == {(7, 7)}


def test_reasons_depend_on_no_other_row(explained, tiny_run):
    rows, parts = explained[0], load_ensemble(tiny_run.path).load_rows("val")
    chosen = [rows[5], rows[2]]

    assert explain_rows(parts, [row.guid for row in chosen], batch_size=32, accelerator=join_ranks("no")) == chosen


def test_deletion_curves_begin_with_the_answer_and_end_alike(explained):
    rows, figures = explained
    for side in ("words", "regions"):
        curves = {name: figures["faithfulness"][side][name]["curve"] for name in ("hiding", "gradients", "random")}
        assert {len(curve) for curve in curves.values()} == {11}
        assert {curve[0] for curve in curves.values()} == {np.mean([row.probability for row in rows])}
        assert max(curve[-1] for curve in curves.values()) - min(curve[-1] for curve in curves.values()) < 1e-6
    words = figures["faithfulness"]["words"]
    assert words["hiding"]["area"] <= words["random"]["area"]
    assert words["hiding"]["below_random"] == pytest.approx(words["random"]["area"] - words["hiding"]["area"])
    assert figures["cost"]["pictures_per_row"] == 1 + 7 * 7


def test_gradients_are_a_second_opinion_on_the_same_rows(explained):
    rows, figures = explained
    assert [row.guid for row in figures["gradients"]] == [row.guid for row in rows]
    assert any(word.effect for row in figures["gradients"] for word in row.words)


@pytest.mark.parametrize(
    "damage",
    [
        {"words": [{"start": 0, "end": 1000, "effect": 0.0}]},
        {"words": [{"start": 3, "end": 5, "effect": 0.0}, {"start": 0, "end": 2, "effect": 0.0}]},
        {"words": [{"start": 0, "end": 1}]},
        *({"regions": [[0.1, 0.2], [0.3]]}, {"regions": []}, {"text": None}, {"probability": float("inf")}),
    ],
)
def test_damaged_reasons_are_refused(explained, tiny_run, tmp_path, damage):
    content = json.loads(explanations_file(tiny_run.path, "val").read_text())
    content["rows"][0] |= damage
    path = tmp_path / "explanations_val.json"
    path.write_text(json.dumps(content))

    with pytest.raises(InputError):
        read_explanations(path)


@pytest.mark.parametrize(
    "flags",
    [
        ["--explain", "--ablation"],
        ["--explain_rows", "3"],
        ["--explain_gradients"],
        ["--explain", "--explain_rows", "0"],
        ["--explain", "--predict", "list.txt", "--output", "out.txt"],
        ["--explain", "--ablation_input", "blank"],
    ],
)
def test_flags_that_do_not_go_together_are_refused(tiny_run, evaluate_main, refusal, flags):
    assert "--explain" in refusal(evaluate_main, tiny_run.path, *flags) or "--ablation_input" in flags
