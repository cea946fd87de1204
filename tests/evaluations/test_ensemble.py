"""Frozen towers run once for all models that share them, and no answer is another one for it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from tiny import LABELS, TOKENIZER, tiny_batch, tiny_model
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from data_utils.prepare.pair_files import PairList
from data_utils.prepare.pairs import load_pairs
from data_utils.sources.arguments import DataArguments
from data_utils.splits.draw import make_split
from data_utils.splits.split_file import save_split
from evaluation.arguments import parse_arguments
from evaluation.predict import ensemble, joint_models, loaded_run
from evaluation.predict.ensemble import evaluate_rows, load_ensemble, predict_rows
from evaluation.predict.joint_models import join_models
from evaluation.reasons.explaining import explain_rows
from evaluation.reasons.faithfulness import list_effects
from evaluation.robustness.robustness import AskCorrupted
from evaluation.tasks.ablation import AskInputs
from evaluation.tasks.session import run_evaluation
from modeling.classifier import SentimentClassifier
from modeling.pictures import PictureSettings
from run_files.folds_folder import FoldsFolder
from run_files.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("fresh_state")

NUM_PAIRS, NUM_FOLDS, SEEDS, BATCH_SIZE = 8, 2, (7, 8), 3
NUM_BATCHES, BATCHES_OF_FOLD = 3, 2
WORDS = ["good", "bad", "day", "plain", "some", "words"]
ENCODERS = {"CLIPTextModel": "text", "BertModel": "text", "CLIPVisionModel": "image", "ViTModel": "image"}
Build = Callable[..., SentimentClassifier]


def build_member(architecture: str, fusion: str, seed: int, **options: object) -> SentimentClassifier:
    """A model with the towers of seed 0 and a head of its own, whose answers differ clearly between rows."""
    model = tiny_model(architecture, fusion, seed=seed, **options)
    for kind, tower in tiny_model(architecture, fusion, **options).towers().items():
        model.towers()[kind].load_state_dict(tower.state_dict())
    with torch.no_grad():
        for parameter in model.fusion.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@pytest.fixture
def make_run(
    make_pairs: Callable[..., Path], make_arguments: Callable[..., DataArguments], tmp_path: Path
) -> Callable[..., FoldsFolder]:
    """Factory of a cross-validated run as train.py leaves it, without the training."""

    def make(build: Build) -> FoldsFolder:
        rng = np.random.default_rng(0)
        texts = [" ".join(rng.choice(WORDS, rng.integers(4, 9))) for _ in range(NUM_PAIRS)]
        rows = [(f"p{number}", LABELS[number % 3], text) for number, text in enumerate(texts)]
        data = make_arguments(make_pairs(rows))
        picture = PictureSettings(**build(0).config.picture)
        pairs = load_pairs(PairList(data.list_path(), Path(data.data_dir)), data=data, picture=picture)
        guids = pairs.dataset["guid"][:]
        split = make_split(guids, pairs.dataset["label"][:], list(range(NUM_PAIRS)), val_ratio=0.0, seed=0)
        sections = {"model": {}, "data": asdict(data), "environment": {"data_fingerprint": pairs.fingerprint}}
        sections["training"] = {"modality_dropout": 0.1}
        folder = FoldsFolder(tmp_path / "run", SEEDS, NUM_FOLDS)
        folder.save_arguments(sections | {"folds": {"seeds": list(SEEDS), "num_folds": NUM_FOLDS}})
        folder.metrics_file.write_text("{}")
        for member in folder.members():
            run = RunFolder(member.path)
            build(member.seed * 10 + member.fold).save_pretrained(run.model_dir)
            TOKENIZER.save_pretrained(run.model_dir)
            run.save_arguments(sections | {"data": asdict(data) | {"split_file": str(run.split_file)}})
            run.metrics_file.write_text("{}")
            held_out = tuple(guids[member.fold :: NUM_FOLDS])
            kept = tuple(guid for guid in guids if guid not in held_out)
            parts = {"train": kept, "val": (), "test": held_out, "seed": 0, "val_ratio": 0.0}
            save_split(type(split)(**parts), run.split_file)
        return folder

    return make


@contextmanager
def count_encoders() -> Iterator[Counter[str]]:
    """How often encoders of texts and of pictures ran, but for the trial of a model that is loaded."""
    calls: Counter[str] = Counter()

    def note(module: nn.Module, *_: object) -> None:
        kind = ENCODERS.get(type(module).__name__)
        if kind is not None and not torch.is_inference_mode_enabled():  # in which the trial runs
            calls[kind] += 1

    hook = register_module_forward_hook(note)
    try:
        yield calls
    finally:
        hook.remove()


def answer(*_: object) -> AskInputs:
    return AskInputs()


@pytest.mark.parametrize(
    ("architecture", "fusion", "freeze", "precision", "step"),
    [
        ("clip", "co_attn", "both", "no", AskCorrupted),  # tokens and patches are read
        ("vilbert", "cross_attn", "image", "bf16", answer),  # vectors are views of the tokens; the texts' tower trains
        ("clip", "text_only", "text", "no", answer),
    ],
)
def test_held_out_rows_pass_once_for_all_seeds(make_run, architecture, fusion, freeze, precision, step) -> None:
    folder = make_run(partial(build_member, architecture, fusion, freeze=freeze))
    parts = load_ensemble(folder.path).load_rows("test")
    accelerator = Accelerator(cpu=True, mixed_precision=precision)
    options = {"batch_size": BATCH_SIZE, "accelerator": accelerator}
    with count_encoders() as singly:
        alone = [evaluate_rows([part], step, **options) for part in parts]
    with count_encoders() as jointly:
        found = evaluate_rows(parts, step, **options)
    for kind in singly:
        assert jointly[kind] == singly[kind] / (len(SEEDS) if freeze in (kind, "both") else 1)
    assert found.guids == tuple(sorted(found.guids))
    for key, values in found.outputs.items():
        said = [dict(zip(each.guids, each.outputs[key], strict=True)) for each in alone]
        expected = [sum(each[guid] for each in said if guid in each) / len(SEEDS) for guid in found.guids]
        assert np.array_equal(values, expected), key


def test_reasons_are_of_the_models_that_held_the_row_out(make_run) -> None:
    folder = make_run(partial(build_member, "clip", "co_attn", freeze="both"))
    parts = load_ensemble(folder.path).load_rows("test")
    accelerator = Accelerator(cpu=True)
    said = evaluate_rows(parts, answer, batch_size=BATCH_SIZE, accelerator=accelerator)
    options = {"batch_size": BATCH_SIZE, "accelerator": accelerator, "grid": 2}
    with count_encoders() as calls:
        found = explain_rows(parts, said.guids, **options)
    of_seeds = [
        explain_rows([part for part in parts if part[0] is run], guids, **options)
        for run, guids in ((run, rows["guid"][:]) for run, rows in parts)
    ]
    effects = defaultdict(list)
    for reasons in (each for rows in of_seeds for each in rows):
        effects[reasons.guid, reasons.label].append(list_effects(reasons, "regions"))

    assert calls["image"] == NUM_PAIRS * (1 + 2)  # 4 regions in batches of 3; both seeds' models together
    for row, values in zip(found, said.outputs["full"], strict=True):
        assert (row.label, row.probability) == (LABELS[values.argmax()], pytest.approx(values.max(), abs=1e-6))
        own = effects[row.guid, row.label]
        if len(own) == len(SEEDS):
            np.testing.assert_allclose(list_effects(row, "regions"), np.mean(own, axis=0), atol=2e-6)


def test_files_are_those_of_models_asked_one_by_one(make_run, tmp_path, monkeypatch) -> None:
    folder = make_run(partial(build_member, "vilbert", "co_attn", freeze="both"))
    output = folder.path / "p.txt"
    ways = [
        ["--ablation", "--ablation_input", "blank"],
        ["--predict", str(tmp_path / "pairs" / "train.txt"), "--output", str(output), "--contributions"],
    ]
    counts, files = [], []
    for max_bytes in (joint_models.MAX_BYTES, 0):
        monkeypatch.setattr(ensemble, "join_models", partial(joint_models.join_models, max_bytes=max_bytes))
        with count_encoders() as calls:
            for words in ways:
                run_evaluation(
                    parse_arguments([str(folder.path), *words, "--per_device_eval_batch_size", str(BATCH_SIZE)])
                )
        counts.append(calls)
        files.append({path.name: path.read_bytes() for path in folder.path.iterdir() if path.is_file()})
    assert files[0] == files[1]
    assert {"ablation_test.json", output.name, "p.probabilities.csv"} <= files[0].keys()
    # What stands for a missing picture, then the rows: by two seeds for each fold, and by four models for the list.
    passes = NUM_FOLDS * (1 + BATCHES_OF_FOLD), 1 + NUM_BATCHES
    assert counts[0]["image"] == sum(passes)
    assert counts[1]["image"] == 2 * passes[0] + 4 * passes[1]


def test_rows_of_all_models_are_prepared_once(make_run, monkeypatch) -> None:
    """Though each fold has a split of its own, and to tell so takes no second look at a tokenizer."""
    calls: Counter[str] = Counter()

    def count(name: str, called: Callable[..., object]) -> None:
        def counted(*args: object, **options: object) -> object:
            calls[name] += 1
            return called(*args, **options)

        monkeypatch.setattr(loaded_run, name, counted)

    folder = make_run(partial(build_member, "clip", "attn", freeze="both"))
    for name in ("load_pairs", "tokenizer_key"):
        count(name, getattr(loaded_run, name))
    parts = load_ensemble(folder.path).load_rows("test")
    evaluate_rows(parts, answer, batch_size=BATCH_SIZE, accelerator=Accelerator(cpu=True))
    assert len(parts) == NUM_FOLDS * len(SEEDS)
    assert calls == {"load_pairs": 1, "tokenizer_key": len(parts)}


def test_equal_frozen_towers_alone_are_shared() -> None:
    batch = tiny_batch()
    options = [{"freeze": "both"}] * 4 + [{"freeze": "both", "unfreeze_last": 1}, {}]
    models = [build_member("clip", "co_attn", seed, **each).eval() for seed, each in enumerate(options)]
    with torch.no_grad():
        next(iter(models[2].image_tower.encoder.parameters()))[0] += 1e-3
    models[3].config.image_mean = [0.4, 0.5, 0.5]
    with torch.no_grad(), count_encoders() as calls:
        expected = [model.probabilities(model(**batch).logits) for model in models]
        assert calls == {"text": 6, "image": 6}
        calls.clear()
        groups = list(join_models(models))
        found = [joint.probabilities(joint.encode("text", batch), joint.encode("image", batch)) for joint in groups]
    assert [len(joint) for joint in groups] == [4, 1, 1]
    assert calls == {"text": 1 + 2, "image": 3 + 2}
    assert torch.equal(torch.cat(found, dim=1), torch.stack(expected, dim=1))


def test_models_that_together_are_too_large_are_asked_in_turn() -> None:
    models = [build_member("clip", "attn", seed, freeze="both") for seed in range(5)]
    first, largest = (sum(each.nbytes for each in nn.ModuleList(part).parameters()) for part in (models[:1], models))
    head = sum(each.nbytes for each in models[0].parameters() if each.requires_grad)
    assert largest == 5 * first
    groups = list(join_models(models, max_bytes=first + head))
    assert [len(joint) for joint in groups] == [2, 2, 1]


def test_models_of_other_tokens_are_asked_of_their_own_rows(make_run) -> None:
    run = load_ensemble(make_run(partial(build_member, "clip", "attn", freeze="both")).path).first
    shorter = replace(run, config=deepcopy(run.config))
    shorter.config.max_length = 4
    parts = [(each, each.load_split_rows("test")) for each in (run, shorter)]
    options = {"batch_size": BATCH_SIZE, "accelerator": Accelerator(cpu=True)}
    found = predict_rows(parts, answer, **options)["full"]
    alone = [predict_rows([part], answer, **options)["full"] for part in parts]
    assert not np.array_equal(*alone)
    assert np.array_equal(found, np.mean(alone, axis=0))
