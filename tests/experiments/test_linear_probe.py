"""Linear probes: they find what decides the label, and the rows that judge decide nothing."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from data_utils.splits.split_file import Split
from modeling.errors import InputError
from training.experiments.baseline_run import STRENGTHS, ProbeRows, deal_inner, fit_probe, judge_baselines

NAMES = ("majority", "text", "image", "both")


def make_rows(labels, vectors, *, groups=None):
    """ProbeRows with `vectors` as texts, and noise of two features as pictures."""
    count = len(labels)
    noise = np.random.default_rng(99).normal(size=(count, 2))
    return ProbeRows(
        guids=[f"{number:03d}" for number in range(count)],
        labels=np.asarray(labels),
        groups=np.arange(count) if groups is None else groups,
        num_classes=3,
        vectors={"text": vectors, "image": noise},
    )


def cut_in_three(rows):
    """Folds of every third row."""
    parts = [tuple(rows.guids[start::3]) for start in range(3)]
    return [Split(tuple(sorted({*rows.guids} - {*part})), (), seed=0, val_ratio=0.0, test=part) for part in parts]


def measure(answers, rows):
    return {name: np.mean(found.argmax(axis=1) == rows.labels) for name, found in answers.items()}


def draw_labels(count):
    """Classes of 20, 30 and 50 %."""
    return np.random.default_rng(0).choice(3, size=count, p=[0.2, 0.3, 0.5])


def test_inner_parts_divide_the_training_rows_and_no_group():
    count = 60
    rows = make_rows(draw_labels(count), np.zeros((count, 1)), groups=np.arange(count) % 25)
    train_rows = np.flatnonzero(rows.groups % 5 > 0)
    parts = [(train_rows[fitted], train_rows[judging]) for fitted, judging in deal_inner(rows, train_rows, seed=3)]
    assert np.array_equal(np.sort(np.concatenate([judging for _, judging in parts])), train_rows)
    for fitted, judging in parts:
        assert np.array_equal(np.sort(np.concatenate([fitted, judging])), train_rows)
        assert not set(rows.groups[fitted]) & set(rows.groups[judging])


def test_copies_are_fitted_on_and_judge_nothing():
    rows = make_rows(draw_labels(40), np.zeros((40, 1)), groups=np.repeat(np.arange(20), 2))
    rows = replace(rows, guids=[f"{row // 2}" if row % 2 == 0 else f"{row // 2}_t1" for row in range(40)])
    for fitted, judging in deal_inner(rows, np.arange(40), seed=0):
        assert not any(rows.guids[row].endswith("_t1") for row in judging)
        assert {row + 1 for row in fitted if row % 2 == 0} == {row for row in fitted if row % 2}


def test_probe_finds_what_decides_the_label():
    labels = draw_labels(150)
    noise = np.random.default_rng(1).normal(size=(150, 8))
    rows = make_rows(labels, noise + 4 * np.eye(3, 8)[labels])
    answers, strengths = judge_baselines(rows, cut_in_three(rows), seed=0)
    accuracy = measure(answers, rows)
    assert accuracy["text"] > 0.95
    assert accuracy["both"] > 0.95
    assert accuracy["image"] < accuracy["majority"] + 0.1
    assert min(strengths["text"]) > max(strengths["image"])
    assert all(np.allclose(found.sum(axis=1), 1) for found in answers.values())


def test_probe_finds_nothing_in_shuffled_labels():
    labels, count = draw_labels(150), 150
    vectors = np.random.default_rng(1).normal(size=(count, 60)) + 4 * np.eye(3, 60)[labels]
    shuffled = np.random.default_rng(2).permutation(labels)
    rows = make_rows(shuffled, vectors)
    accuracy = measure(judge_baselines(rows, cut_in_three(rows), seed=0)[0], rows)
    chance = 2 * np.sqrt(accuracy["majority"] * (1 - accuracy["majority"]) / count)
    assert all(accuracy[name] <= accuracy["majority"] + chance for name in NAMES)
    # The rows do suffice to be learned by heart, by whom is shown them.
    every = np.arange(count)
    known, _ = fit_probe(rows, ("text",), every, every, parts=[(every, every)])
    assert np.mean(known.argmax(axis=1) == shuffled) > accuracy["majority"] + 3 * chance


def test_held_out_rows_decide_nothing():
    labels = draw_labels(90)
    rows = make_rows(labels, np.random.default_rng(1).normal(size=(90, 6)) + np.eye(3, 6)[labels])
    fold = cut_in_three(rows)[:1]
    held_out = np.arange(0, 90, 3)
    answers, strengths = judge_baselines(rows, fold, seed=0)
    changed = rows.labels.copy()
    changed[held_out] = (changed[held_out] + 1) % 3
    vectors = rows.vectors["text"].copy()
    vectors[held_out[1:]] *= 1000
    other = replace(rows, labels=changed, vectors=rows.vectors | {"text": vectors})
    found, again = judge_baselines(other, fold, seed=0)
    assert again == strengths
    for name in NAMES:
        assert np.array_equal(found[name][0], answers[name][0])
    assert not np.allclose(found["text"][3], answers["text"][3])


def test_strength_is_that_of_the_lowest_loss():
    labels, every = draw_labels(90), np.arange(90)
    rows = make_rows(labels, np.random.default_rng(1).normal(size=(90, 20)) + np.eye(3, 20)[labels])
    parts = deal_inner(rows, every, seed=0)
    answers, chosen = fit_probe(rows, ("text",), every, every, parts=parts)
    scaled = StandardScaler().fit_transform(rows.vectors["text"])
    losses = []
    for strength in STRENGTHS:
        regression, loss = LogisticRegression(C=strength, max_iter=1000, tol=1e-6), 0.0
        for fitted, judging in parts:
            found = regression.fit(scaled[fitted], labels[fitted]).predict_proba(scaled[judging])
            loss -= np.log(found[np.arange(len(judging)), labels[judging]]).mean()
        losses.append(loss)
    assert chosen == STRENGTHS[np.argmin(losses)]
    assert 0 < np.argmin(losses) < len(STRENGTHS) - 1
    regression = LogisticRegression(C=chosen, max_iter=1000, tol=1e-6).fit(scaled, labels)
    assert answers == pytest.approx(regression.predict_proba(scaled), abs=1e-3)


def test_missing_input_stands_for_the_mean():
    vectors = np.random.default_rng(0).normal(3.0, 2.0, size=(60, 4))
    vectors[::5] = np.nan
    labels = draw_labels(60)
    rows, train_rows = make_rows(labels, vectors), np.arange(40)
    parts = deal_inner(rows, train_rows, seed=0)
    judged = np.arange(40, 60)
    found, _ = fit_probe(rows, ("text",), train_rows, judged, parts=parts)
    assert np.ptp(found[::5], axis=0).max() == 0  # all that lack the text
    mean = rows.vectors["text"].copy()
    mean[45] = np.nanmean(vectors[:40], axis=0)
    filled, _ = fit_probe(replace(rows, vectors={"text": mean}), ("text",), train_rows, judged, parts=parts)
    assert filled[5] == pytest.approx(found[5])
    nowhere = make_rows(labels, np.full_like(vectors, np.nan))
    found, _ = fit_probe(nowhere, ("text",), train_rows, judged, parts=parts)
    assert found == pytest.approx(np.tile(np.bincount(labels[:40]) / 40, (20, 1)), abs=1e-3)


def test_too_few_rows_for_the_inner_parts_are_named_as_such():
    rows = make_rows([0, 1, 2, 0], np.random.default_rng(0).normal(size=(4, 2)))
    with pytest.raises(InputError, match="chosen in 3 parts of a fold's training rows, which are too few: 2 rows in 2"):
        deal_inner(rows, np.arange(2), seed=0)


def test_class_without_training_rows_has_no_probability():
    rows = make_rows([0, 2] * 10 + [1], np.random.default_rng(0).normal(size=(21, 2)))
    fitted, judging = np.arange(0, 20, 2), np.arange(1, 20, 2)
    found, strength = fit_probe(rows, ("text",), np.arange(20), np.array([20]), parts=[(fitted, judging)])
    assert found[0, 1] == 0
    assert found.sum() == pytest.approx(1)
    assert strength in STRENGTHS  # though one class is in neither half of the part
    with pytest.raises(InputError, match="single class"):
        fit_probe(rows, ("text",), fitted, np.array([20]), parts=[(fitted[:5], fitted[5:])])
