"""The loss of an update: rare classes, and that it doesn't depend on how a batch is cut."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from tiny import tiny_batch, tiny_model
from torch import nn

from data_utils.prepare.columns import NO_LABEL_ID
from modeling.batch import SentimentOutput, drop_labels
from modeling.choices import PROBLEM_TYPES
from modeling.configuration import SentimentConfig
from training.engine.objective import (
    ClassBalance,
    balance_classes,
    balance_labels,
    classification_loss,
    training_loss,
)

LABELS = torch.tensor([0, 2, 1, 2, 0, 2, 2, 1])


@pytest.fixture
def logits():
    return torch.randn(8, 3, generator=torch.Generator().manual_seed(0))


def balance_of(counts, class_weights="none", logit_adjustment=0.0):
    flags = SimpleNamespace(class_weights=class_weights, logit_adjustment=logit_adjustment)
    return balance_classes(flags, torch.tensor(counts))


def loss_of(logits, labels, balance, *, label_smoothing=0.0):
    weight_sum = balance.weights[labels[labels != NO_LABEL_ID]].sum()
    return classification_loss(
        logits,
        labels,
        config=SentimentConfig(),
        balance=balance,
        label_smoothing=label_smoothing,
        weight_sum=weight_sum,
    )


@pytest.mark.parametrize(("kind", "expected"), [("none", [1, 1, 0]), ("balanced", [4 / 9, 4 / 3, 0])])
def test_weights_are_powers_of_the_inverse_share_and_zero_without_rows(kind, expected):
    assert balance_of([6, 2, 0], kind).weights.tolist() == pytest.approx(expected)
    assert balance_of([6, 2, 0], "sqrt").weights.tolist() == pytest.approx([(4 / 9) ** 0.5, (4 / 3) ** 0.5, 0])


def test_offsets_are_the_logarithms_of_the_shares(logits):
    balance = balance_of([5, 3, 0], logit_adjustment=0.5)
    assert balance.offsets.tolist() == pytest.approx([0.5 * math.log(each / 8) for each in (5, 3, 1)])
    assert not balance_of([5, 3, 0]).offsets.any()
    found = loss_of(logits, LABELS, balance_of([2, 2, 4], logit_adjustment=0.5), label_smoothing=0.1)
    shifted = logits + 0.5 * torch.tensor([0.25, 0.25, 0.5]).log()
    assert found.item() == pytest.approx(F.cross_entropy(shifted, LABELS, label_smoothing=0.1).item())


def test_best_constant_answer_under_the_adjustment_has_balanced_classes():
    # At tau 1 what is learned is the answer under equal shares: without any input, the uniform one.
    labels = torch.tensor([0] * 6 + [1] * 3 + [2])
    constant = nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.LBFGS([constant], max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = loss_of(constant.expand(10, 3), labels, balance_of([6, 3, 1], logit_adjustment=1.0))
        loss.backward()
        return loss

    optimizer.step(closure)
    assert constant.softmax(0).tolist() == pytest.approx([1 / 3] * 3, abs=1e-3)


def test_rows_without_label_count_nowhere(logits):
    labels = torch.where(torch.arange(8) < 5, LABELS, NO_LABEL_ID)
    balance = balance_of([2, 2, 4], "balanced", 0.3)
    assert loss_of(logits, labels, balance).item() == pytest.approx(loss_of(logits[:5], labels[:5], balance).item())


class Head(nn.Module):
    """A model of one layer that reads both modalities."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, *, text_vector, text_present, image_present):
        return SentimentOutput(logits=self.layer(text_vector * text_present[:, None]))


def objective(model, rows):
    values = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
    present = torch.ones(8, dtype=torch.bool)
    batch = {"text_vector": values, "text_present": present, "image_present": present, "labels": LABELS}
    batch["row_index"] = torch.arange(8)
    balance = balance_of([2, 2, 4], "sqrt", 0.3)
    loss, _ = training_loss(
        model,
        {name: value[rows] for name, value in batch.items()},
        config=SentimentConfig(),
        args=SimpleNamespace(seed=1, label_smoothing_factor=0.1, modality_dropout=0.3, unimodal_loss_weight=0.0),
        epoch=0,
        has_both=True,
        balance=balance,
        weight_sum=balance.weights[LABELS].sum(),
    )
    return loss.item()


def test_loss_of_a_batch_is_the_sum_of_its_pieces():
    model = Head()
    whole = objective(model, slice(None))
    pieces = [objective(model, rows) for rows in (slice(0, 3), slice(3, 5), slice(5, 8))]
    assert sum(pieces) == pytest.approx(whole, rel=1e-5)


def test_unimodal_losses_count_the_rows_that_have_the_modality():
    model, batch, labels = tiny_model("vilbert", "early").eval(), tiny_batch(), torch.tensor([0, 1, 2, 0])
    batch["text_present"][1] = batch["image_present"][2] = False
    loss, outputs = training_loss(
        model,
        batch | {"labels": labels, "row_index": torch.arange(4)},
        config=SentimentConfig(),
        args=SimpleNamespace(seed=1, label_smoothing_factor=0.0, modality_dropout=0.0, unimodal_loss_weight=0.5),
        epoch=0,
        has_both=True,
        balance=ClassBalance(torch.ones(3), torch.zeros(3)),
        weight_sum=torch.tensor(4.0),
    )
    both, text, image = (
        F.cross_entropy(logits, labels, reduction="none")
        for logits in (outputs.logits, outputs.text_logits, outputs.image_logits)
    )
    expected = (both.sum() + 0.5 * (text[[0, 2, 3]].sum() + image[[0, 1, 3]].sum())) / 4
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert torch.equal(outputs.text_logits[2], outputs.logits[2])  # its picture is missing anyway


TASK_LABELS = {
    "single_label": LABELS,
    "multi_label": torch.tensor([[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]] * 2).float(),
    "regression": torch.tensor([3.0, -1.0, 250.0, 7.0, 0.5, 2.0, 9.0, 1.0]),
}


@pytest.mark.parametrize("task", TASK_LABELS)
@pytest.mark.parametrize("weights", [None, torch.tensor([1, 2, 0.5, 0, 3, 1, 1, 4])], ids=["plain", "weighted"])
def test_loss_of_every_task_is_the_sum_of_its_pieces(task, weights, logits):
    config = SentimentConfig(problem_type=PROBLEM_TYPES[task], label_mean=2.0, label_std=4.0)
    labels = drop_labels(TASK_LABELS[task], torch.arange(8) != 3)
    balance = balance_labels(SimpleNamespace(class_weights="sqrt", logit_adjustment=0.0), TASK_LABELS[task], 3)
    total = balance.sum_weights(labels, weights)

    def share(rows):
        row_weights = None if weights is None else weights[rows]
        options = {"config": config, "balance": balance, "label_smoothing": 0.0, "row_weights": row_weights}
        return classification_loss(logits[rows], labels[rows], weight_sum=total, **options)

    pieces = [share(slice(*ends)) for ends in ((0, 3), (3, 5), (5, 8))]
    assert sum(pieces).item() == pytest.approx(share(slice(None)).item(), rel=1e-5)
    assert sum(pieces).isfinite()
    if task == "multi_label":
        once = torch.ones(8) if weights is None else weights
        terms = F.binary_cross_entropy_with_logits(
            logits, TASK_LABELS[task], pos_weight=torch.ones(3), reduction="none"
        ).mean(dim=1)
        kept = torch.arange(8) != 3
        assert balance.weights.tolist() == [1, 1, 1]  # as many ones as zeros
        assert sum(pieces).item() == pytest.approx(((terms * once)[kept].sum() / once[kept].sum()).item())


def test_positive_labels_weigh_by_the_odds_against_them():
    labels = torch.tensor([[1.0, 0, 0]] * 2 + [[0.0, 0, 1]] * 6)
    flags = SimpleNamespace(class_weights="balanced", logit_adjustment=0.0)
    assert balance_labels(flags, labels, 3).weights.tolist() == pytest.approx([3, 1, 1 / 3])
