"""Dropout of a trial's own: right on average, the same for a seed, and nothing of torch's random numbers is used."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from training.heads.head_trainer import TrialDropout


def drop(seed, x, rate):
    with TrialDropout(seed):
        return nn.Dropout(rate)(x)


@pytest.mark.parametrize("rate", [0.1, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_drops_its_share_and_scales_the_rest(rate, dtype):
    x = torch.ones(400, 500, dtype=dtype, requires_grad=True)
    dropped = drop(1, x, rate)
    kept = dropped != 0
    # 200,000 draws: four standard errors.
    assert (~kept).float().mean().item() == pytest.approx(rate, abs=4 * (rate * (1 - rate) / x.numel()) ** 0.5)
    assert (dropped[kept] == torch.tensor(1 / (1 - rate), dtype=dtype)).all()
    dropped.sum().backward()
    assert torch.equal(x.grad, dropped.detach())
    # Entries are dropped independently of their neighbours in either direction.
    lost = (~kept).float()
    for neighbours in (lost[:, 1:] * lost[:, :-1], lost[1:] * lost[:-1]):
        assert neighbours.mean().item() == pytest.approx(rate**2, abs=0.003)


def test_depends_on_its_seed_alone():
    x = torch.ones(50, 50)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = drop(1, x, 0.5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    assert torch.equal(drop(1, x, 0.5), first)
    assert not torch.equal(drop(2, x, 0.5), first)
    with TrialDropout(1):
        F.dropout(x, 0.5)
        assert not torch.equal(F.dropout(x, 0.5), first), "each call draws anew"
        assert torch.equal(nn.Dropout(0.5).eval()(x), x)


def test_weights_of_attention_are_dropped():
    torch.manual_seed(0)
    query, key, value = (torch.randn(64, 2, 3, 8) for _ in range(3))
    mask = torch.tensor([[True, True, False]])
    weights = (query @ key.transpose(-2, -1) / 8**0.5).masked_fill(~mask, -torch.inf).softmax(dim=-1)
    state = torch.get_rng_state()
    with TrialDropout(1):
        dropped = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=0.25)
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(dropped, drop(1, weights, 0.25) @ value)
    with TrialDropout(1):
        plain = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=0.0)
    assert torch.equal(plain, F.scaled_dot_product_attention(query, key, value, attn_mask=mask))
