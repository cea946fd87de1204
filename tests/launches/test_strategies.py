"""Every launch configuration trains every architecture to the same numbers as one process, and saves whole weights.

Table of the largest differences: `UPDATES=20 python -m pytest -m "" -s tests/launches -k numbers_of`.
"""

from __future__ import annotations

import csv
import itertools
import json
import os
import shutil

import numpy as np
import pytest
import torch
from launching import (
    kill,
    launch,
    launcher,
    load_weights,
    logged_losses,
    needs_compiler,
    read_model_folder,
    start,
    train_flags,
    wait_for,
)
from safetensors.torch import load_file
from tiny import SIZES, TOKENIZER
from transformers import BertConfig, BertModel, CLIPConfig, CLIPImageProcessorPil, CLIPModel, ViTConfig, ViTModel

import train
from data_utils.sample import main as draw_sample
from evaluation.predict.loaded_run import load_run
from training.checkpoint.checkpoints import list_checkpoints, step_of

UPDATES = int(os.environ.get("UPDATES", "8"))
EVERY = UPDATES // 4
# The loss falls, so that the "best" model is the one of the first evaluation.
RHYTHM = [
    "--eval_strategy",
    "steps",
    "--eval_steps",
    str(EVERY),
    "--save_strategy",
    "steps",
    "--save_steps",
    str(EVERY),
]
RHYTHM += ["--save_total_limit", "9", "--metric_for_best_model", "loss", "--greater_is_better", "True"]
# multi_node.yaml and multi_node_zero3.yaml are launched by test_multi_node.py, fsdp2.yaml by test_fsdp.py.
STRATEGIES = ("multi_gpu", "multi_gpu_bf16", "zero1", "zero2", "zero3", "zero3_offload")
ARCHITECTURES = ("baseline", "vilbert", "clip")
# `make test` launches each strategy and each architecture; `make test-matrix` all others.
QUICK = [(strategy, "clip") for strategy in STRATEGIES[:4]] + [("zero3", "baseline"), ("zero3_offload", "vilbert")]
CELLS = [
    pytest.param(*cell, marks=[] if cell in QUICK else pytest.mark.slow, id="-".join(cell))
    for cell in itertools.product(STRATEGIES, ARCHITECTURES)
]
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """Sample pairs, a pretrained text encoder, a vision encoder and a CLIP, which ZeRO-3 has to find whole."""
    folder = tmp_path_factory.mktemp("strategies")
    draw_sample(["--output_dir", str(folder / "pairs"), "--num_pairs", "120"])
    torch.manual_seed(0)
    text = BertConfig(**SIZES, **NO_DROPOUT, vocab_size=len(TOKENIZER), max_position_embeddings=16)
    BertModel(text).save_pretrained(folder / "text")
    TOKENIZER.save_pretrained(folder / "text")
    ViTModel(ViTConfig(**SIZES, **NO_DROPOUT, image_size=32, patch_size=16)).save_pretrained(folder / "vision")
    tokens = {"vocab_size": len(TOKENIZER), "max_position_embeddings": 16, "eos_token_id": TOKENIZER.sep_token_id}
    pictures = SIZES | {"image_size": 32, "patch_size": 16}
    CLIPModel(CLIPConfig(text_config=SIZES | tokens, vision_config=pictures, projection_dim=16)).save_pretrained(
        folder / "clip"
    )
    TOKENIZER.save_pretrained(folder / "clip")
    size = {"height": 32, "width": 32}
    for name in ("vision", "clip"):
        CLIPImageProcessorPil(size=size, crop_size=size).save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="module")
def table():
    """Rows of the table, printed in the end."""
    rows = []
    yield rows
    print("\nstrategy        architecture  losses    weights   logits of the saved model")
    for strategy, architecture, *differences in rows:
        print(f"{strategy:15} {architecture:13}", *(f"{value:.1e}  " for value in differences))


@pytest.fixture(scope="module")
def reference(workshop):
    """Run folder of one process, with the same rows per update, by architecture and precision; made once each."""
    runs = {}

    def make(architecture, *precision):
        if (architecture, precision) not in runs:
            run = workshop / f"one-{len(runs)}"
            train.main(flags_of(architecture, workshop, run, "--gradient_accumulation_steps", "4", *precision)[1:])
            runs[architecture, precision] = run
        return runs[architecture, precision]

    return make


@pytest.fixture(scope="module")
def trained(workshop):
    """Run folder of two ranks under a strategy, by strategy and architecture; made once each."""

    def make(strategy, architecture):
        run = workshop / f"{strategy}-{architecture}"
        if not run.exists():
            flags = flags_of(architecture, workshop, run, "--gradient_accumulation_steps", "2")
            assert launch(launcher(strategy, 2), *flags).count("pairs for training") == 1
        return run

    return make


def flags_of(architecture, workshop, run, *flags):
    vision = json.dumps(SIZES | NO_DROPOUT | {"patch_size": 16})
    model = {
        "baseline": ["--vocab_size", "200", "--text_config", json.dumps(SIZES | NO_DROPOUT), "--vision_config", vision],
        "vilbert": ["--text_name", str(workshop / "text"), "--vision_name", str(workshop / "vision")],
        "clip": ["--clip_name", str(workshop / "clip")],
    }[architecture]
    model = ["--model", architecture, *model]
    common = ["--max_steps", str(UPDATES), "--class_weights", "sqrt", "--per_device_train_batch_size", "4", *RHYTHM]
    return train_flags(workshop / "pairs", run, *common, *flags, model=model)


def largest(first, second):
    return max(
        float(np.abs(np.asarray(one) - np.asarray(other)).max()) for one, other in zip(first, second, strict=True)
    )


def saved_logits(run):
    """Logits of the validation rows, less their mean over the classes, as the training's last evaluation gave them."""
    with (run / "predictions_val.csv").open() as file:
        rows = [[float(value) for name, value in row.items() if "prob_" in name] for row in csv.DictReader(file)]
    return center(np.log(rows))


def reloaded_logits(run):
    """The same of the saved model, read by this process alone."""
    loaded = load_run(run)
    dataset = loaded.load_split_rows("val")
    batch = loaded.collator([dataset[row] for row in range(len(dataset))])
    with torch.no_grad():
        outputs = loaded.load_model().eval()(**{k: v for k, v in batch.items() if k not in ("labels", "row_index")})
    return center(outputs.logits.double().log_softmax(-1).numpy())


def center(logits):
    return logits - logits.mean(axis=1, keepdims=True)


def last_weights(run):
    """Of the checkpoint after the last update."""
    return load_file(run / "checkpoints" / f"checkpoint-{UPDATES}" / "model.safetensors")


@needs_compiler
@pytest.mark.parametrize(("strategy", "architecture"), CELLS)
def test_strategy_gives_the_numbers_of_one_process(strategy, architecture, trained, reference, table):
    precision = ["--bf16"] if strategy.endswith("bf16") else []
    one, two = reference(architecture, *precision), trained(strategy, architecture)
    losses, expected = logged_losses(two), logged_losses(one)
    assert list(losses) == list(range(1, UPDATES + 1))
    differences = (
        largest([losses[step] for step in losses], [expected[step] for step in losses]),
        largest(last_weights(two).values(), last_weights(one).values()),
        largest(saved_logits(two), reloaded_logits(two)),
    )
    table.append((strategy, architecture, *differences))
    assert read_model_folder(two) == read_model_folder(one)  # what it takes to stand alone
    # In bfloat16 the losses part by its rounding, the weights by as much as AdamW turns that into, and the float32
    # model read again from the run's own computation.
    limits = (5e-3, np.inf, 5e-2) if precision else (1e-5, 1e-4, 1e-5)
    assert all(difference <= limit for difference, limit in zip(differences, limits, strict=True)), differences


@needs_compiler
@pytest.mark.parametrize("strategy", [pytest.param("zero1", marks=pytest.mark.slow), "zero3"])
def test_deepspeed_in_half_precision_saves_its_float32_masters(strategy, workshop):
    run = workshop / f"{strategy}-half"
    launch(launcher(strategy, 2), *flags_of("clip", workshop, run, "--bf16", "--gradient_accumulation_steps", "2"))
    weights = load_weights(run)  # refuses other types
    rounded = [torch.equal(value, value.bfloat16().float()) for value in weights.values() if value.numel() > 99]
    assert not any(rounded)
    assert largest(saved_logits(run), reloaded_logits(run)) < 5e-2


@pytest.mark.parametrize(
    "strategy", [pytest.param("multi_gpu", marks=pytest.mark.slow), pytest.param("zero3", marks=needs_compiler)]
)
def test_evaluation_under_a_strategy_scores_as_training_did(strategy, workshop, reference):
    run = workshop / f"evaluated-{strategy}"
    shutil.copytree(reference("clip"), run)
    screen = launch(launcher(strategy, 2), "evaluate.py", str(run))
    assert screen.count("validation: ") == 1
    scored, trained = (json.loads((run / name).read_text()) for name in ("evaluation_val.json", "metrics.json"))
    assert {name: scored[name] for name in ("accuracy", "macro_f1", "confusion_matrix")} == {
        name: trained["val"][name] for name in ("accuracy", "macro_f1", "confusion_matrix")
    }


def go_back(run, *, to):
    """Leave no checkpoint of a run after the update `to`."""
    for checkpoint in list_checkpoints(run / "checkpoints"):
        if step_of(checkpoint) > to:
            shutil.rmtree(checkpoint)


@needs_compiler
@pytest.mark.parametrize("strategy", ["multi_gpu", "zero2"])
def test_one_process_goes_on_with_the_rows_of_two_ranks(strategy, trained, workshop, caplog):
    """The numbers are those of the uninterrupted run, as far as the optimizer's state can be read."""
    whole, run = trained(strategy, "clip"), workshop / f"alone-{strategy}"
    shutil.copytree(whole, run)
    go_back(run, to=2 * EVERY)
    more = ["--gradient_accumulation_steps", "2", "--resume_from_checkpoint", "latest"]
    train.main(flags_of("clip", workshop, run, *more)[1:])
    assert "16 rows per update: --per_device_train_batch_size 4, --gradient_accumulation_steps 4 on 1" in caplog.text
    losses, expected = logged_losses(run), logged_losses(whole)
    assert ("starts anew" in caplog.text) == (strategy == "zero2")
    if strategy == "zero2":  # weights and rows go on
        losses, expected = losses[2 * EVERY + 1], expected[2 * EVERY + 1]
    assert losses == pytest.approx(expected, abs=1e-5)


@needs_compiler
def test_optimizer_goes_on_in_another_layout(trained, workshop):
    """From ZeRO-2 on two ranks to ZeRO-3 on one, and from that to ZeRO-3 on two."""
    whole, run = trained("zero2", "clip"), workshop / "layouts"
    shutil.copytree(whole, run)
    more = ["--gradient_accumulation_steps", "2", "--resume_from_checkpoint", "latest"]
    for ranks, step in ((1, 2 * EVERY), (2, 3 * EVERY)):
        go_back(run, to=step)
        screen = launch(launcher("zero3", ranks), *flags_of("clip", workshop, run, *more))
        assert f"checkpoint-{step}." in screen
        assert "was converted" in screen
        assert "starts anew" not in screen
        assert logged_losses(run) == pytest.approx(logged_losses(whole), abs=1e-5)
        for found, expected in zip(last_weights(run).values(), last_weights(whole).values(), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)  # anew: differences up to 1e-3
        best = load_file(whole / "checkpoints" / f"checkpoint-{EVERY}" / "model.safetensors")
        assert [name for name, value in load_weights(run).items() if not torch.equal(value, best[name])] == []
        assert not (run / "checkpoints" / ".universal").exists()


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_strategy_resumes_after_a_kill(strategy, architecture, trained, workshop, tmp_path):
    whole, cut = trained(strategy, architecture), tmp_path / "cut"
    flags = flags_of(architecture, workshop, cut, "--gradient_accumulation_steps", "2")
    job = start(launcher(strategy, 2), *flags, "--disable_tqdm", "true", log=tmp_path / "log")
    assert wait_for(lambda: len(list_checkpoints(cut / "checkpoints")) == 2, job)
    kill(job)
    launch(launcher(strategy, 2), *flags, "--resume_from_checkpoint", "latest")
    assert logged_losses(cut) == logged_losses(whole)
    weights, expected = load_weights(cut), load_weights(whole)
    assert [name for name in expected if not torch.equal(weights[name], expected[name])] == []
