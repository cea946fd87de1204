"""Probabilities with labels of which something is known."""

import numpy as np
from scipy.special import softmax


def draw_rows(num_rows=3000, *, temperature=1.0, seed=0, num_classes=3):
    """Probabilities whose calibrated form is had at `temperature`, labels drawn from that form, and five folds."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.standard_normal((num_rows, num_classes))
    labels = (softmax(logits, axis=1).cumsum(axis=1) < rng.random((num_rows, 1))).sum(axis=1)
    return softmax(logits * temperature, axis=1), labels, np.arange(num_rows) % 5


def with_confidence(confidence, correct):
    """Two classes: class 1 is predicted with `confidence`; the labels."""
    confidence = np.asarray(confidence, dtype=float)
    return np.stack([1 - confidence, confidence], axis=1), np.asarray(correct, dtype=int)
