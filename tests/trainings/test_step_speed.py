"""What makes a training step fast changes no result: attention, patches, memory, bfloat16, the profile."""

import platform
import random
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
import yaml
from conftest import ROOT
from tiny import ARCHITECTURES, LABELS, tiny_batch, tiny_model
from torch import nn
from torch._dynamo.utils import counters
from transformers import AttentionMaskInterface

from modeling.kernels import ATTENTION, PatchConv2d, attend, replace_patch_convolutions
from training.flags.arguments import MIN_WEIGHTS_FOR_BF16, SentimentTrainingArguments
from training.launch import checks

MASKS = {
    "none": {},
    "bool": {"mask": torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]]).bool()[:, None, None, :]},
    "added": {"mask": torch.tensor([0.0, -1.0, 2.0, -1e4])[None, None, None, :].bfloat16()},
    "causal": {"is_causal": True},
}


@pytest.mark.parametrize("kind", MASKS)
def test_attention_in_bfloat16_equals_torchs_own(kind):
    torch.manual_seed(0)
    query, key, value, target = (torch.randn(2, 3, 4, 8).bfloat16() for _ in range(4))
    results = []
    for attention in (
        lambda *parts: attend(*parts, **MASKS[kind]),
        lambda *parts: F.scaled_dot_product_attention(
            *parts, attn_mask=MASKS[kind].get("mask"), is_causal=MASKS[kind].get("is_causal", False)
        ),
    ):
        parts = [part.clone().requires_grad_() for part in (query, key, value)]
        attended = attention(*parts)
        attended.backward(target)
        results.append([attended, *(part.grad for part in parts)])
    for ours, torchs in zip(*results, strict=True):
        torch.testing.assert_close(ours, torchs, atol=3e-2, rtol=3e-2)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_towers_in_bfloat16_answer_as_in_float32(architecture):
    model, batch = tiny_model(architecture).eval(), tiny_batch()
    exact = model(**batch).logits
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(**batch).logits
    assert rounded.dtype == torch.bfloat16
    assert (exact - rounded).abs().max() < 0.02 * max(exact.abs().max(), 1)


def test_causal_attention_needs_no_mask_of_padding_on_the_right():
    tower, batch = tiny_model("clip").text_tower.eval(), tiny_batch()
    mask = batch["attention_mask"]
    masked = tower.encoder(input_ids=batch["input_ids"], attention_mask=mask)
    unmasked = tower.encoder(input_ids=batch["input_ids"])
    torch.testing.assert_close(unmasked.pooler_output, masked.pooler_output)
    real = mask.bool()
    torch.testing.assert_close(unmasked.last_hidden_state[real], masked.last_hidden_state[real])
    sizes = {"batch_size": 4, "q_length": mask.shape[1], "kv_length": mask.shape[1]}
    on_accelerator = AttentionMaskInterface()[ATTENTION](**sizes, attention_mask=mask.to("meta"))
    assert on_accelerator is None
    assert AttentionMaskInterface()[ATTENTION](**sizes, attention_mask=mask.bool()) is not None


@pytest.mark.slow
def test_texts_of_all_lengths_take_few_compiled_graphs(run_train, make_pairs):
    lengths = random.Random(0)
    rows = [(str(row), LABELS[row % 3], " ".join(["word"] * lengths.randint(1, 14))) for row in range(90)]
    torch._dynamo.reset()
    counters.clear()
    run_train("--torch_compile_backend", "eager", "--num_train_epochs", "3", data_dir=make_pairs(rows))
    assert counters["stats"]["unique_graphs"] == 3  # one length, any length, evaluation
    assert not counters["graph_break"]


def test_patches_as_linear_layer_equal_the_convolution():
    torch.manual_seed(0)
    convolution, patches = nn.Conv2d(3, 5, 4, 4), nn.Sequential(nn.Conv2d(3, 5, 4, 4))
    patches[0].load_state_dict(convolution.state_dict())
    replace_patch_convolutions(patches)
    assert type(patches[0]) is PatchConv2d
    pixels = torch.randn(2, 3, 9, 13)  # a row and a column that fill no patch
    results = []
    for module in (convolution, patches[0]):
        with torch.autocast("cpu", torch.bfloat16):
            embedded = module(pixels)
        embedded.float().pow(2).sum().backward()
        results.append((embedded, module.weight.grad, module.bias.grad))
    for ours, torchs in zip(*results, strict=True):
        torch.testing.assert_close(ours, torchs, atol=0.1, rtol=2e-2)
    assert torch.equal(patches(pixels), convolution(pixels))  # float32: the convolution itself


def test_convolutions_that_overlap_stay_as_they_are():
    encoder = nn.Sequential(nn.Conv2d(3, 5, 4, 2), nn.Conv2d(5, 5, 3, 3, padding=1), nn.Conv2d(6, 6, 2, 2, groups=2))
    replace_patch_convolutions(encoder)
    assert [type(module) for module in encoder] == [nn.Conv2d] * 3


COUNT_PAGE_FAULTS = """
import resource, torch
from data_utils.system.processes import keep_freed_memory
keep_freed_memory()
for _ in range(30):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(16 * 2**20).fill_(1)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no mallopt")
def test_freed_memory_is_used_again():
    """Of 64 MB, 16,384 pages, in a process of its own: other tests leave holes in the memory of this one."""
    command = [sys.executable, "-c", COUNT_PAGE_FAULTS]
    counts = list(map(int, subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.split()))
    assert counts[0] > 1000
    assert counts[-1] < 1000  # by then there is room for the alignment of a tensor wherever small objects lie


@pytest.mark.parametrize(
    ("fast_bf16", "num_weights", "flags", "expected"),
    [
        (True, MIN_WEIGHTS_FOR_BF16, {}, "bf16"),
        (True, MIN_WEIGHTS_FOR_BF16 - 1, {}, "no"),
        (False, MIN_WEIGHTS_FOR_BF16, {}, "no"),
        (True, MIN_WEIGHTS_FOR_BF16, {"bf16": False}, "no"),
        (False, 1, {"bf16": True}, "bf16"),
    ],
)
@pytest.mark.skipif(torch.accelerator.is_available(), reason="the choice is one of CPUs")
def test_bfloat16_is_chosen_where_it_pays(monkeypatch, tmp_path, fast_bf16, num_weights, flags, expected):
    monkeypatch.setattr(checks, "has_fast_bf16", lambda: fast_bf16)
    args = SentimentTrainingArguments(output_dir=str(tmp_path), report_to="none", head_learning_rate=1e-3, **flags)
    monkeypatch.setattr("training.flags.arguments.count_matrix_weights", lambda model: num_weights)
    args = args.with_precision_for(tiny_model())
    assert args.mixed_precision == expected
    assert args.bf16 == (expected == "bf16")


@pytest.mark.skipif(torch.accelerator.is_available(), reason="the choice is one of CPUs")
def test_run_says_its_precision_and_writes_its_profile(run_train, monkeypatch):
    monkeypatch.setattr(checks, "has_fast_bf16", lambda: True)
    monkeypatch.setattr("training.flags.arguments.MIN_WEIGHTS_FOR_BF16", 1)
    run, screen = run_train("--profile")
    assert "bfloat16" in screen
    assert yaml.safe_load((run / "config.yaml").read_text())["environment"]["mixed_precision"] == "bf16"
    assert "aten::addmm" in (run / "profile/table-rank0.txt").read_text()
    assert (run / "profile/trace-rank0.json").stat().st_size > 1000


def test_profile_of_a_run_that_is_too_short_is_refused_aloud(run_train):
    run, screen = run_train("--profile", "--max_steps", "2")
    assert "--profile" in screen
    assert not (run / "profile").exists()
