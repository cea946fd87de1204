"""Shapley values against ones worked out by hand, remarks against their rule."""

from __future__ import annotations

import json

import numpy as np
import pytest

from evaluation.scores.contributions import INPUTS, compute_contributions, format_contributions, summarise_contributions


def draw_probabilities(num_rows=50, *, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.dirichlet([1, 1, 1], size=num_rows) for name in INPUTS}


def two_classes(**worths):
    """Probabilities of two classes, of which the first has the given ones."""
    return {name: np.stack([values, 1 - np.array(values)], axis=1) for name, values in worths.items()}


def test_modality_that_adds_nothing_has_exactly_nothing():
    drawn = draw_probabilities(seed=3)
    found = compute_contributions(drawn | {"text_only": drawn["full"], "image_only": drawn["none"]})
    assert (found["shapley_image"] == 0).all()
    assert (found["synergy"] == 0).all()
    assert not found["changed_without_image"].any()
    assert np.abs(found["shapley_text"]).max() > 0.1


def test_values_equal_those_worked_out_by_hand():
    # Both are needed; either is enough; each adds its own; of the class predicted from both: 0.8, 0.4, 0.7, 0.5.
    probabilities = two_classes(
        full=[0.9, 0.9, 0.9, 0.2],
        text_only=[0.5, 0.9, 0.7, 0.6],
        image_only=[0.5, 0.9, 0.6, 0.3],
        none=[0.5, 0.5, 0.4, 0.5],
    )
    found = compute_contributions(probabilities)
    assert found["prediction"].tolist() == [0, 0, 0, 1]
    assert found["synergy"] == pytest.approx([0.4, -0.4, 0, 0.2])
    assert found["shapley_text"] == pytest.approx([0.2, 0.2, 0.3, 0])
    assert found["shapley_image"] == pytest.approx([0.2, 0.2, 0.2, 0.3])
    assert found["changed_without_text"].tolist() == [False] * 4
    assert found["changed_without_image"].tolist() == [False, False, False, True]


def test_summary_equals_values_worked_out_by_hand():
    probabilities = two_classes(full=[0.9, 0.7], text_only=[0.8, 0.4], image_only=[0.4, 0.8], none=[0.5, 0.5])
    result = summarise_contributions(compute_contributions(probabilities), ["good", "bad"])
    # Row by row: text 0.4 and -0.1, picture 0 and 0.3, synergy 0.2 and 0.
    expected = {
        "rows": 2,
        "shapley_text": 0.15,
        "shapley_image": 0.15,
        "synergy": 0.1,
        "abs_shapley_text": 0.25,
        "abs_shapley_image": 0.15,
        "image_share": 0.375,
        "changed_without_text": 0.5,
        "changed_without_image": 0.5,
    }
    assert result["overall"] == pytest.approx(expected)
    assert result["per_class"] == {"good": pytest.approx(expected), "bad": {"rows": 0}}
    assert result["remarks"] == []
    assert json.loads(json.dumps(result, allow_nan=False)) == result


@pytest.mark.parametrize(
    ("worths", "remarks"),
    [
        # The picture moves the answer by 0.009 at most.
        ([0.909, 0.9, 0.504, 0.5], ["Taking the text away changes none of", "The model ignores the picture"]),
        # By 0.011, in place of nothing or beside the text.
        ([0.9, 0.9, 0.489, 0.5], ["Taking the picture away changes none of"]),
        ([0.911, 0.9, 0.4, 0.4], ["Taking the picture away changes none of"]),
        ([0.9, 0.4, 0.9, 0.4], ["The model ignores the text"]),
        ([0.9, 0.4, 0.4, 0.4], []),
        ([0.6, 0.6, 0.6, 0.6], ["The model ignores the text", "The model ignores the picture"]),
    ],
)
def test_modality_without_effect_is_named(worths, remarks):
    columns = compute_contributions(two_classes(**{name: [v, v] for name, v in zip(INPUTS, worths, strict=True)}))
    found = summarise_contributions(columns, ["good", "bad"])["remarks"]
    assert [remark[: len(start)] for remark, start in zip(found, remarks, strict=True)] == remarks


def test_one_row_that_reacts_keeps_a_modality_from_being_ignored():
    rows = {"full": [0.9] * 40 + [0.6], "text_only": [0.9] * 40 + [0.4], "image_only": [0.5] * 40 + [0.6]}
    columns = compute_contributions(two_classes(**rows, none=[0.5] * 40 + [0.4]))
    remarks = summarise_contributions(columns, ["good", "bad"])["remarks"]
    assert [remark for remark in remarks if "picture" in remark] == []
    assert columns["changed_without_image"].sum() == 1


def test_text_shows_each_class_and_the_remarks():
    probabilities = two_classes(full=[0.9, 0.7], text_only=[0.9, 0.7], image_only=[0.5, 0.5], none=[0.5, 0.5])
    summary = summarise_contributions(compute_contributions(probabilities), ["good", "bad"])
    text = format_contributions(summary, title="validation")
    lines = [line.split() for line in text.splitlines()]
    assert "contributions on validation: 2 rows" in text
    assert ["good", "2", "+0.300", "+0.000", "+0.000", "0.0%", "0.0%", "0.0%"] in lines
    assert ["bad", "0"] in lines
    assert "The model ignores the picture: adding it moves the probability of the answer by at most 0.0000" in text
    constant = two_classes(full=[0.9], text_only=[0.9], image_only=[0.9], none=[0.9])
    summary = summarise_contributions(compute_contributions(constant), ["good", "bad"])
    assert summary["overall"]["image_share"] is None
    assert format_contributions(summary, title="validation").count("The model ignores") == 2
