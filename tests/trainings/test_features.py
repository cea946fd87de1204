"""Training on the cached output of frozen towers: the same numbers, computed once, under every flag that allows it."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import TINY
from datasets import Dataset, Features, List, Value
from launching import launch, launcher, logged_losses, train_flags
from tiny import ARCHITECTURES, IMAGE_SIZE, LABELS, TOKENIZER, tiny_model

import train
from data_utils.prepare.batches import BatchReader
from data_utils.prepare.collator import PairCollator
from data_utils.prepare.pairs import add_row_index
from modeling.errors import InputError
from modeling.fusion import FUSION_HEADS
from training.data import features
from training.data.feature_pass import FeaturePass
from training.data.features import cache_features, choose_columns
from training.heads.head_trainer import FeatureRows

SIZES = TINY | {"num_hidden_layers": 2}


@pytest.fixture
def pairs(make_pairs):
    """24 pairs; of one the text is missing, of another the picture."""
    rows = [
        (str(number), LABELS[number % 3], f"{LABELS[number % 3]} words " * (1 + number % 4)) for number in range(24)
    ]
    rows[4], rows[7] = (*rows[4][:2], None), (*rows[7], None)
    return make_pairs(rows, folder="few")


@pytest.fixture
def run_train(run_train, pairs):
    """Train a tiny model of two blocks on the pairs for two epochs; returns the run folder and the screen's text."""
    common = ["--vision_config", json.dumps(SIZES | {"patch_size": 16}), "--num_train_epochs", "2"]
    common += ["--val_ratio", "0.25", "--logging_steps", "1"]
    return lambda name, *flags: run_train(*common, *flags, name=name, data_dir=pairs, text_config=SIZES)


FREEZING = [
    ("vilbert", "co_attn", ["--freeze", "both"]),
    ("clip", "cross_attn", ["--projection_dim", "16", "--freeze", "image"]),
    ("clip", "co_attn", ["--projection_dim", "16", "--unfreeze_last", "1"]),
    ("baseline", "attn", ["--freeze", "text", "--unfreeze_last", "1"]),
]


@pytest.mark.parametrize(("model", "fusion", "flags"), FREEZING)
def test_cached_features_give_the_losses_of_the_whole_model(run_train, model, fusion, flags):
    common = ["--model", model, "--fusion", fusion, *flags]
    plain, _ = run_train("plain", *common, "--cache_features", "false")
    cached, screen = run_train("cached", *common, "--cache_features", "true")
    assert "computed in" in screen
    losses = logged_losses(plain)
    assert len(set(losses.values())) == len(losses)
    assert logged_losses(cached) == pytest.approx(losses, abs=1e-5)


def rows_of(count=12, seed=0):
    """Tokenised rows as prepare_data gives them."""
    rng = np.random.default_rng(seed)
    columns = {
        "guid": [str(number) for number in range(count)],
        "label": [number % 3 for number in range(count)],
        "input_ids": [[2, *rng.integers(5, len(TOKENIZER), 1 + number % 7).tolist(), 3] for number in range(count)],
        "image": [rng.integers(0, 256, 3 * IMAGE_SIZE**2, dtype=np.uint8).tobytes() for _ in range(count)],
        "text_present": [True] * count,
        "image_present": [True] * count,
        "image_key": [f"{seed}-{number}" for number in range(count)],
    }
    kinds = {"input_ids": List(Value("int32")), "image": Value("binary"), "label": Value("int64")}
    kinds |= {"guid": Value("string"), "image_key": Value("string")}
    return Dataset.from_dict(columns, features=Features({key: kinds.get(key, Value("bool")) for key in columns}))


@pytest.fixture
def cache(tmp_path, caplog):
    """Call cache_features on a model; returns the result, and whether each kind of features was found or computed."""

    def call(model, dataset=None, *, wanted=None, rows=None, precision="no"):
        dataset = rows_of() if dataset is None else dataset
        before = set(tmp_path.glob("features-*[!k]"))
        dataset, collator = cache_features(
            model.eval(),
            dataset,
            PairCollator(TOKENIZER.pad_token_id, IMAGE_SIZE),
            cache_features=wanted,
            rows=range(len(dataset)) if rows is None else rows,
            cache_dir=tmp_path,
            args=SimpleNamespace(mixed_precision=precision, device=torch.device("cpu"), dataloader_num_workers=0),
        )
        features = SimpleNamespace(dataset=dataset, collator=collator)
        return features, len(set(tmp_path.glob("features-*[!k]")) - before)

    return call


def logits_of(model, features):
    """Logits of all rows."""
    reader = BatchReader(add_row_index(features.dataset))
    batch = features.collator(reader.__getitems__(range(len(reader))))
    with torch.no_grad():
        return model.eval()(**{key: value for key, value in batch.items() if key not in ("labels", "row_index")}).logits


@pytest.mark.parametrize("fusion", FUSION_HEADS)
def test_every_head_gives_the_same_logits_on_cached_features(cache, fusion):
    model = tiny_model("vilbert", fusion, freeze="both")
    numbers = torch.get_rng_state()
    plain, built = cache(model, wanted=False)
    assert built == 0
    inputs = ["input_ids"] * ("text" in model.towers()) + ["image"] * ("image" in model.towers())
    assert [name for name in plain.dataset.column_names if name in ("input_ids", "image")] == inputs
    cached, built = cache(model)
    assert built == len(model.towers())
    assert torch.equal(torch.get_rng_state(), numbers), "random numbers of the training were drawn"
    assert "image" not in cached.dataset.column_names
    torch.testing.assert_close(logits_of(model, cached), logits_of(model, plain), atol=1e-5, rtol=1e-5)


def test_second_call_computes_nothing_and_heads_share_what_they_both_need(cache):
    attn, cross = (tiny_model("clip", fusion, freeze="both") for fusion in ("attn", "cross_attn"))
    cross.text_tower.load_state_dict(attn.text_tower.state_dict())
    cross.image_tower.load_state_dict(attn.image_tower.state_dict())
    first, built = cache(cross)
    assert built == 2
    again, built = cache(cross)
    assert built == 0
    assert torch.equal(logits_of(cross, again), logits_of(cross, first))
    vectors, built = cache(attn)  # the image vectors lie beside cross_attn's image tokens
    assert built == 0
    assert [column.name for column in vectors.collator.features] == ["text_vector", "image_vector"]
    assert [column.name for column in first.collator.features] == ["text_vector", "image_vector", "image_tokens"]


@pytest.mark.parametrize("filling", ["zeros", "noise"])
def test_damaged_features_are_computed_again(cache, tmp_path, caplog, filling):
    """Their file's size, its schema and its number of rows are as they were."""
    model = tiny_model("clip", "attn", freeze="both")
    expected = logits_of(model, cache(model)[0])
    for part in tmp_path.glob("features-*/part.arrow"):
        content = part.read_bytes()
        third = len(content) // 3
        middle = bytes(third) if filling == "zeros" else np.random.default_rng(0).bytes(third)
        part.write_bytes(content[:third] + middle + content[2 * third :])
    assert torch.equal(logits_of(model, cache(model)[0]), expected)
    assert caplog.text.count("holds other bytes than were written); building it again") == 2


def test_key_knows_weights_content_and_precision_of_each_tower_apart(cache):
    model = tiny_model("clip", "attn", freeze="both")
    assert cache(model)[1] == 2
    with torch.no_grad():
        model.text_tower.projection.weight[0, 0] += 1
    assert cache(model)[1] == 1
    changed = rows_of().to_dict()
    changed["image_key"][3] = "other"
    assert cache(model, Dataset.from_dict(changed, features=rows_of().features))[1] == 1
    changed = rows_of().to_dict()
    changed["label"][3], changed["guid"][5] = 2, "x"
    assert cache(model, Dataset.from_dict(changed, features=rows_of().features))[1] == 0
    model.config.image_mean = [0.1, 0.2, 0.3]
    assert cache(model)[1] == 1
    assert cache(model, precision="bf16")[1] == 2


def test_key_tells_a_whole_tower_from_its_first_blocks():
    for options, expected in (({"freeze": "both"}, "all"), ({"unfreeze_last": 1}, 1)):
        work = FeaturePass(tiny_model("clip", "attn", **options), "image", (), None, torch.device("cpu"), "no")
        assert features._describe(work)["frozen_blocks"] == expected


@pytest.mark.parametrize(
    ("options", "wanted", "columns"),
    [
        ({"freeze": "none"}, None, []),
        ({"freeze": "image"}, None, []),
        ({"freeze": "image"}, True, ["image_vector"]),
        ({"freeze": "both"}, None, ["text_vector", "image_vector"]),
        ({"freeze": "both"}, False, []),
        ({"freeze": "none", "unfreeze_last": 1}, None, []),
        ({"freeze": "none", "unfreeze_last": 1}, True, ["text_hidden", "image_hidden"]),
        ({"freeze": "text", "unfreeze_last": 1}, True, ["text_hidden"]),
        ({"freeze": "text", "fusion": "text_only"}, None, ["text_vector"]),
    ],
)
def test_what_is_cached_follows_from_what_is_frozen(options, wanted, columns):
    chosen = choose_columns(tiny_model("clip", **{"fusion": "attn", **options}), wanted, dtype="float32")
    assert [column.name for kind in chosen for column in chosen[kind]] == columns


def test_caching_where_no_block_is_frozen_is_refused(cache):
    with pytest.raises(InputError, match="no tower has a frozen block"):
        cache(tiny_model("clip", "attn", unfreeze_last=2), wanted=True)


def test_only_wanted_rows_are_computed_and_parts_of_a_split_share_them(cache, monkeypatch):
    monkeypatch.setattr(features, "ROWS_PER_PART", 5)
    model, dataset = tiny_model("clip", "attn", freeze="both"), rows_of(12)
    whole, built = cache(model, dataset)
    assert built == 6
    kept = dataset.select([11, 3, 7, 0])
    some, built = cache(model, kept, rows=[1, 2])
    assert built == 6
    picked = SimpleNamespace(dataset=some.dataset.select([1, 2]), collator=some.collator)
    torch.testing.assert_close(logits_of(model, picked), logits_of(model, whole)[[3, 7]], atol=1e-6, rtol=1e-6)
    stored = some.dataset.data.column("text_vector").to_pylist()
    assert [row for row, value in enumerate(stored) if value is not None] == [3, 7]


def test_nothing_is_read_for_a_tower_that_the_head_does_not_have(cache):
    features, _ = cache(tiny_model("clip", "text_only", freeze="both"))
    rows = FeatureRows(add_row_index(features.dataset), features.collator, torch.device("cpu"))
    assert set(rows.batch(torch.arange(4))) == {"text_vector", "text_present", "image_present", "labels", "row_index"}


def test_rows_are_grouped_by_length_in_an_order_of_seed_and_epoch_alone(run_train, monkeypatch):
    """Or ranks, which draw other numbers for dropout, would each deal from an order of their own."""
    padding, orders, collate = [], [], PairCollator.__call__

    def note(collator, rows):
        batch = collate(collator, rows)
        padding[-1] += int((batch["attention_mask"] == 0).sum())
        orders[-1].extend(batch["row_index"].tolist())
        return batch

    monkeypatch.setattr(PairCollator, "__call__", note)
    flags = ["--model", "clip", "--projection_dim", "16", "--fusion", "text_only", "--eval_strategy", "no"]
    flags += ["--save_strategy", "no", "--per_device_train_batch_size", "2"]
    for strategy, dropout in (("random", "0"), ("group_by_length", "0"), ("group_by_length", "0.5")):
        padding.append(0)
        orders.append([])
        run_train("run", *flags, "--train_sampling_strategy", strategy, "--fusion_dropout", dropout)
    assert padding[1] < padding[0]
    assert orders[1] == orders[2]
    epochs = orders[1][:18], orders[1][18:36]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(18))
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("fusion", ["early", "image_only"])
def test_grouping_by_the_length_of_texts_that_nobody_reads_is_refused(run_train, tmp_path, refusal, fusion):
    flags = ["--model", "clip", "--projection_dim", "16", "--freeze", "both", "--fusion", fusion]
    sentence = refusal(run_train, "run", *flags, "--train_sampling_strategy", "group_by_length")
    assert sentence.startswith("error: Got --train_sampling_strategy group_by_length")
    assert list((tmp_path / "cache").glob("features-*")) == []


def test_tokens_of_a_pass_in_bfloat16_are_kept_in_bfloat16(cache):
    model = tiny_model("vilbert", "co_attn", freeze="both")
    half, _ = cache(model, precision="bf16")
    whole, _ = cache(model)
    sizes = {len(row) for row in half.dataset["image_tokens"]}, {len(row) for row in whole.dataset["image_tokens"]}
    assert sizes == ({5 * 32 * 2}, {5 * 32 * 4})
    torch.testing.assert_close(logits_of(model, half), logits_of(model, whole), atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_trained_parameter_gets_a_gradient_on_cached_hidden_states(cache, architecture):
    model = tiny_model(architecture, "co_attn", unfreeze_last=1)
    features, built = cache(model, wanted=True)
    assert built == 2
    batch = features.collator(BatchReader(add_row_index(features.dataset)).__getitems__(range(4)))
    del batch["row_index"]
    model.train()(**batch).loss.backward()
    missing = [name for name, value in model.named_parameters() if value.requires_grad and value.grad is None]
    assert missing == []


def test_two_ranks_share_the_work_and_give_the_losses_of_one_process(pairs, tmp_path):
    flags = ["--freeze", "both", "--fusion", "cross_attn", "--num_train_epochs", "2"]
    one, two = tmp_path / "one", tmp_path / "two"
    screen = launch(launcher("multi_gpu", 2), *train_flags(pairs, two, *flags, "--per_device_train_batch_size", "4"))
    # A rank that comes later may find in the cache what the other has computed.
    assert screen.count("Output of frozen parts: ") == 1
    assert list((pairs.parent / "cache").glob("features-*"))
    train.main(train_flags(pairs, one, *flags, "--cache_features", "false")[1:])
    losses = logged_losses(one)
    assert len(set(losses.values())) > 2
    assert logged_losses(two) == pytest.approx(losses, abs=1e-5)
