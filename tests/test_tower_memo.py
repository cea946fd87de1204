"""Frozen towers run once for all models that share them, and no answer is another one for it."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset
from tiny import LABELS, TOKENIZER, tiny_batch, tiny_model
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from data_utils.prepare.pairs import add_row_index, load_pairs
from data_utils.sources.arguments import DataArguments
from data_utils.sources.pictures import PictureSettings
from data_utils.splits.draw import make_split
from data_utils.splits.split_file import save_split
from evaluation.arguments import parse_arguments
from evaluation.predict.inference import Outputs, classify, run_inference
from evaluation.predict.loaded_run import LoadedRun
from evaluation.predict.members import judge_rows, load_members, predict_rows
from evaluation.predict.tower_memo import TowerMemo
from evaluation.robustness.robustness import run_robustness
from evaluation.tasks.session import run_evaluation
from modeling.classifier import SentimentClassifier
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
        picture = PictureSettings.from_dict(build(0).config.picture)
        pairs = load_pairs(data.list_path(), pair_dir=Path(data.data_dir), data=data, picture=picture)
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
            run.save_arguments(sections)
            run.metrics_file.write_text("{}")
            held_out = tuple(guids[member.fold :: NUM_FOLDS])
            kept = tuple(guid for guid in guids if guid not in held_out)
            parts = {"train": kept, "val": (), "test": held_out, "seed": 0, "val_ratio": 0.0}
            save_split(type(split)(**parts), run.split_file)
        return folder

    return make


@dataclass
class Calls:
    """How often encoders ran, and how many other things they gave."""

    counts: Counter[str] = field(default_factory=Counter)
    given: set[tuple[str, bytes]] = field(default_factory=set)

    def num_distinct(self, kind: str) -> int:
        return sum(each == kind for each, _ in self.given)


@contextmanager
def count_encoders() -> Iterator[Calls]:
    """The calls of every model's encoders of texts and of pictures, but for the trial of a model that is loaded."""
    calls, loading = Calls(), False
    load_model = LoadedRun.load_model

    def load_uncounted(run: LoadedRun) -> SentimentClassifier:
        nonlocal loading
        loading = True
        model = load_model(run)
        loading = False
        return model

    def note(module: nn.Module, _: object, output: object) -> None:
        kind = ENCODERS.get(type(module).__name__)
        if kind is not None and not loading:
            calls.counts[kind] += 1
            calls.given.add((kind, output.last_hidden_state.float().numpy().tobytes()))

    hook = register_module_forward_hook(note)
    try:
        with mock.patch.object(LoadedRun, "load_model", load_uncounted):
            yield calls
    finally:
        hook.remove()


def answer(run: LoadedRun, model: SentimentClassifier, rows: Dataset) -> Outputs:
    accelerator = Accelerator(cpu=True)
    return run_inference(model, rows, run.collator, batch_size=BATCH_SIZE, accelerator=accelerator, step=classify)


def corrupt(run: LoadedRun, model: SentimentClassifier, rows: Dataset) -> Outputs:
    found = run_robustness(model, run, rows, batch_size=BATCH_SIZE, accelerator=Accelerator(cpu=True))
    return {condition.name: values for condition, values in found.items()}


@pytest.mark.parametrize(
    ("architecture", "fusion", "freeze", "precision", "judge"),
    [
        ("clip", "co_attn", "both", "no", corrupt),  # tokens and patches are read
        ("vilbert", "cross_attn", "image", "bf16", answer),  # vectors are views of the tokens; the texts' tower trains
        ("clip", "text_only", "text", "no", answer),
    ],
)
def test_held_out_rows_pass_once_for_all_seeds(make_run, architecture, fusion, freeze, precision, judge) -> None:
    folder = make_run(partial(build_member, architecture, fusion, freeze=freeze))
    parts = load_members(folder.path).load_rows("test")
    Accelerator(cpu=True, mixed_precision=precision)  # its settings are those of all that follow
    with count_encoders() as singly:
        alone = [judge_rows([part], judge) for part in parts]
    with count_encoders() as jointly:
        found = judge_rows(parts, judge)
    assert jointly.given == singly.given
    for kind in singly.counts:
        if freeze in (kind, "both"):
            assert jointly.counts[kind] == singly.num_distinct(kind) <= singly.counts[kind] / len(SEEDS)
        else:
            assert jointly.counts[kind] == singly.counts[kind]
    assert found.guids == tuple(sorted(found.guids))
    for key, values in found.outputs.items():
        said = [dict(zip(each.guids, each.outputs[key], strict=True)) for each in alone]
        expected = [sum(each[guid] for each in said if guid in each) / len(SEEDS) for guid in found.guids]
        assert np.array_equal(values, expected), key


@pytest.mark.parametrize(("architecture", "fusion"), [("clip", "attn"), ("vilbert", "co_attn")])
def test_prediction_passes_once_for_all_models(make_run, architecture, fusion) -> None:
    members = load_members(make_run(partial(build_member, architecture, fusion, freeze="both")).path)
    data = members.first.data
    rows = add_row_index(members.first.load_rows(data.list_path(), pair_dir=Path(data.data_dir)).dataset)
    parts = [(run, rows) for run in members.runs]
    alone = [predict_rows([part], answer)["probabilities"] for part in parts]
    with count_encoders() as calls:
        found = predict_rows(parts, answer)["probabilities"]
    assert calls.counts == {"text": NUM_BATCHES, "image": NUM_BATCHES}
    assert np.array_equal(found, np.mean(alone, axis=0))
    assert len({values.tobytes() for values in alone}) == len(parts)


def test_files_are_those_without_a_memo(make_run, tmp_path, monkeypatch) -> None:
    folder = make_run(partial(build_member, "vilbert", "co_attn", freeze="both"))
    output = folder.path / "p.txt"
    ways = [
        ["--ablation", "--ablation_input", "blank"],
        ["--predict", str(tmp_path / "pairs" / "train.txt"), "--output", str(output), "--contributions"],
    ]
    counts, files = [], []
    for memo in (TowerMemo, partial(TowerMemo, max_bytes=0)):
        monkeypatch.setattr("evaluation.predict.members.TowerMemo", memo)
        with count_encoders() as calls:
            for words in ways:
                run_evaluation(
                    parse_arguments([str(folder.path), *words, "--per_device_eval_batch_size", str(BATCH_SIZE)])
                )
        counts.append(calls.counts)
        files.append({path.name: path.read_bytes() for path in folder.path.iterdir() if path.is_file()})
    assert files[0] == files[1]
    assert {"ablation_test.json", output.name, "p.probabilities.csv"} <= files[0].keys()
    # What stands for a missing picture, then the rows: by two seeds for each fold, and by four models for the list.
    passes = NUM_FOLDS * (1 + BATCHES_OF_FOLD), 1 + NUM_BATCHES
    assert counts[0]["image"] == sum(passes)
    assert counts[1]["image"] == 2 * passes[0] + 4 * passes[1]


@pytest.mark.parametrize("options", [{"freeze": "none"}, {"freeze": "both", "unfreeze_last": 1}])
def test_what_trains_always_computes(options) -> None:
    memo, batch = TowerMemo(), tiny_batch()
    models = [build_member("clip", "co_attn", seed, **options).eval() for seed in SEEDS]
    with torch.no_grad(), count_encoders() as calls:
        for model in models:
            with memo.serve(model):
                assert model.image_tower.forward.__func__ is type(model.image_tower).forward
                model(**batch)
    assert calls.counts == {"text": 2, "image": 2}
    assert memo.num_bytes == 0


def test_towers_of_other_weights_or_settings_compute() -> None:
    memo, batch = TowerMemo(), tiny_batch()
    first, same, other, brighter = (build_member("clip", "attn", seed, freeze="both").eval() for seed in range(4))
    with torch.no_grad():
        next(iter(other.image_tower.encoder.parameters()))[0] += 1e-3
    brighter.config.image_mean = [0.4, 0.5, 0.5]
    expected = [model(**batch).logits.detach() for model in (first, same, other, brighter)]
    counts = []
    for model, logits in zip((first, same, other, brighter), expected, strict=True):
        with count_encoders() as calls, memo.serve(model), torch.no_grad():
            assert torch.equal(model(**batch).logits, logits)
        counts.append((calls.counts["text"], calls.counts["image"]))
    assert counts == [(1, 1), (0, 0), (0, 1), (1, 1)]


def test_other_pixels_masks_and_precisions_are_other_questions() -> None:
    memo, batch = TowerMemo(), tiny_batch()
    model = build_member("clip", "attn", 0, freeze="both").eval()
    paler = batch["pixel_values"].clone()
    paler[-1, -1, -1, -1] ^= 1
    shorter = batch["attention_mask"].clone()
    shorter[1, 4] = 0
    with torch.no_grad(), count_encoders() as calls, memo.serve(model):
        model(**batch)
        model(**batch | {"pixel_values": paler})
        assert calls.counts == {"text": 1, "image": 2}
        model(**batch | {"attention_mask": shorter})
        assert calls.counts == {"text": 2, "image": 2}
        with torch.autocast("cpu", dtype=torch.bfloat16):
            model(**batch)
        assert calls.counts == {"text": 3, "image": 3}
        for inputs in (batch, batch | {"pixel_values": paler}):
            model(**inputs)
        assert calls.counts == {"text": 3, "image": 3}


@pytest.mark.parametrize(("fusion", "kept"), [("early", "vector"), ("cross_attn", "tokens")])
def test_outputs_stay_within_their_bytes_and_the_first_batches_are_kept(fusion, kept) -> None:
    """No more is kept than fits, and of no more than what the head reads."""
    model = build_member("vilbert", fusion, 0, freeze="image").eval()
    with torch.no_grad():
        vector, tokens = model.image_tower(pixel_values=model.normalize(tiny_batch()["pixel_values"]))
    size = vector.nbytes + (tokens.nbytes if kept == "tokens" else 0)
    memo = TowerMemo(max_bytes=2 * size + size // 2)
    batches = [tiny_batch(seed=seed) for seed in range(4)]
    with torch.no_grad(), memo.serve(model):
        first = [model(**batch).logits for batch in batches]
        assert memo.num_bytes == 2 * size
        with count_encoders() as calls:
            again = [model(**batch).logits for batch in batches]
    assert calls.counts["image"] == 2
    assert memo.num_bytes == 2 * size
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    held = [each for kept in memo._outputs.values() for each in kept]
    assert sum(each.values.untyped_storage().nbytes() for each in held) == memo.num_bytes


def test_model_is_left_as_it_was_and_is_freed() -> None:
    memo, batch = TowerMemo(), tiny_batch()
    model = build_member("clip", "attn", 0, freeze="both").eval()
    head = weakref.ref(model.fusion)
    with torch.no_grad(), memo.serve(model):
        expected = model(**batch).logits
    with torch.no_grad(), count_encoders() as calls:
        assert torch.equal(model(**batch).logits, expected)
    assert calls.counts == {"text": 1, "image": 1}
    with memo.serve(model), pytest.raises(TypeError, match="takes only uint8"):
        model(**batch | {"pixel_values": batch["pixel_values"].float()})
    gc.collect()
    gc.disable()
    try:
        del model
        assert head() is None
    finally:
        gc.enable()
