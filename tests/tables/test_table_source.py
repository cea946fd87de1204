"""What a table says of labels, parts, names and texts is what is trained on."""

from __future__ import annotations

import csv
import json

import pytest
import torch
import yaml
from conftest import LABELS, TELLING_WORDS, tiny_flags
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from safetensors.torch import load_file

import train
from data_utils.prepare.pairs import load_pairs
from data_utils.prepare.tokens import train_wordpiece
from data_utils.sources.arguments import DataArguments
from data_utils.splits.groups import group_ids
from data_utils.tables.opening import open_asked, open_source, settle_labels
from evaluation.predict.loaded_run import load_run
from modeling.text import TEXT_SEPARATOR, tokenize_batch

ROWS = [
    {"id": f"{number:03}", "text": f"{TELLING_WORDS[LABELS[number % 3]]} number {number}", "label": LABELS[number % 3]}
    for number in range(36)
]


@pytest.fixture
def write(tmp_path):
    """Write rows as JSON lines; returns the path."""

    def make(rows, name="rows"):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        return str(path)

    return make


@pytest.fixture
def trained(tmp_path):
    """Train on texts alone for an update; returns the run folder."""

    def run(*flags, name="run"):
        words = tiny_flags("", tmp_path, name)[2:]
        train.main([*flags, *words, "--fusion", "text_only", "--max_steps", "1"])
        return tmp_path / name

    return run


def settled(tmp_path, *paths, **options):
    return settle_labels(DataArguments(data=[*paths], cache_dir=str(tmp_path / "cache"), **options))


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["pos", "neg"], ["neg", "pos"]),
        ([10, 9], ["9", "10"]),
        ([True, False], ["False", "True"]),
        (["happy", "sad", None], ["happy", "sad"]),
    ],
)
def test_labels_are_those_of_the_data_in_their_order(labels, expected, write, tmp_path):
    rows = [row | {"label": labels[number % len(labels)]} for number, row in enumerate(ROWS)]
    assert settled(tmp_path, write(rows)).labels == expected


def test_declared_labels_keep_their_order_and_named_ones_win(tmp_path):
    names = ["positive", "negative", "neutral", "unseen"]
    features = Features({"id": Value("string"), "text": Value("string"), "label": ClassLabel(names=names)})
    Dataset.from_list(ROWS, features=features).save_to_disk(tmp_path / "saved")
    assert settled(tmp_path, str(tmp_path / "saved")).labels == names
    assert settled(tmp_path, str(tmp_path / "saved"), labels=[*LABELS]).labels == [*LABELS]


def test_a_list_of_other_labels_is_learned_and_one_of_ours_keeps_the_three(make_pairs, tmp_path):
    folder = make_pairs([(str(number), "joy" if number % 2 else "fear") for number in range(8)])
    assert settled(tmp_path, str(folder)).labels == ["fear", "joy"]
    mostly = make_pairs([(str(number), "positive" if number else "glad") for number in range(8)], folder="mostly")
    assert settled(tmp_path, str(mostly)).labels == [*LABELS]


def test_rare_label_beside_a_like_one_is_told(write, tmp_path, caplog):
    rows = [{"text": str(number), "label": "positive" if number % 2 else "negative"} for number in range(300)]
    settled(tmp_path, write([*rows, {"text": "x", "label": "postive"}]))
    assert "may be a misspelling of 'positive'" in caplog.text


def test_run_keeps_the_labels_and_the_place_of_its_data(write, trained, monkeypatch):
    path = write([row | {"label": row["label"][:3]} for row in ROWS])
    run = trained("--data", path)
    saved = yaml.safe_load((run / "config.yaml").read_text())["data"]
    assert (saved["labels"], saved["data"]) == (["neg", "neu", "pos"], [path])
    assert load_run(run).label_names == ["neg", "neu", "pos"]


@pytest.mark.parametrize("kind", ["files", "splits"])
def test_declared_parts_are_taken_as_they_are(kind, write, trained, tmp_path):
    parts = {"train": ROWS[:24], "validation": ROWS[24:30], "test": ROWS[30:]}
    if kind == "files":
        paths = {part: write(rows, part) for part, rows in parts.items()}
        flags = ["--data", paths["train"], "--val_data", paths["validation"], "--test_data", paths["test"]]
    else:
        DatasetDict({part: Dataset.from_list(rows) for part, rows in parts.items()}).save_to_disk(tmp_path / "saved")
        flags = ["--data", str(tmp_path / "saved")]
    split = json.loads((trained(*flags) / "split.json").read_text())
    for part, name in (("train", "train"), ("val", "validation"), ("test", "test")):
        assert split[part] == [row["id"] for row in parts[name]]


def test_validation_is_drawn_beside_a_declared_test(write, trained):
    run = trained("--data", write(ROWS[:30]), "--test_data", write(ROWS[30:], "test"), "--val_ratio", "0.2")
    split = json.loads((run / "split.json").read_text())
    assert split["test"] == [row["id"] for row in ROWS[30:]]
    assert sorted(split["train"] + split["val"]) == [row["id"] for row in ROWS[:30]]
    assert len(split["val"]) == 6


def test_text_in_two_declared_parts_is_a_leak(write, trained, refusal, tmp_path):
    twin = [*ROWS[30:], {"id": "twin", "text": ROWS[0]["text"].upper(), "label": "neutral"}]
    flags = ["--data", write(ROWS[:30]), "--val_data", write(twin, "val")]
    words = tiny_flags("", tmp_path)[2:]
    sentence = refusal(train.main, [*flags, *words, "--fusion", "text_only"])
    assert "'000' (training) and 'twin' (validation)" in sentence
    run = trained(*flags, "--allow_leaky_split", name="leaky")
    assert len(json.loads((run / "split.json").read_text())["val"]) == 7


def test_rows_without_names_are_named_by_their_numbers(write, trained):
    rows = [{name: row[name] for name in ("text", "label")} for row in ROWS]
    run = trained("--data", write(rows[:30]), "--val_data", write(rows[30:], "val"))
    split = json.loads((run / "split.json").read_text())
    assert split["train"] == sorted(map(str, range(1, 31)))
    assert split["val"] == [f"val-{number}" for number in range(1, 7)]


def test_several_texts_are_joined_by_the_tokenizers_separator(write, tmp_path):
    rows = [row | {"title": f"title {number}"} for number, row in enumerate(ROWS)]
    data = settled(tmp_path, write(rows), text_column=["title", "text"])
    source = open_source(data)
    rows = source.rows(data.labels)
    assert rows.guids[0] == "000"
    texts, _ = source.locate(rows)
    assert texts[0] == f"title 0{TEXT_SEPARATOR}{ROWS[0]['text']}"
    tokenizer = train_wordpiece(texts, vocab_size=200, max_length=32)
    assert TEXT_SEPARATOR not in tokenizer.get_vocab()
    (numbers,) = tokenize_batch(texts[:1], tokenizer, 32)["input_ids"]
    assert tokenizer.decode(numbers) == f"[CLS] title 0 [SEP] {ROWS[0]['text']} [SEP]"


def test_table_and_list_folders_have_their_own_flags(refusal, make_pairs, numbered_rows, tmp_path):
    words = tiny_flags(make_pairs(numbered_rows(12)), tmp_path)
    assert "--text_column" in refusal(train.main, [*words, "--text_column", "text"])


def test_rows_that_share_one_picture_of_several_are_one_group(write, tmp_path, small_picture, photo):
    for number in range(3):
        photo(number).save(tmp_path / f"{number}.png")
    pictures = [["0.png", "1.png"], ["2.png"], ["1.png", "2.png"], []]
    rows = [{"id": f"a,{number}", "text": f"text {number}", "image": each} for number, each in enumerate(pictures)]
    data = DataArguments(data=[write(rows)], cache_dir=str(tmp_path / "cache"), labels=[*LABELS])
    source = open_asked("--predict", data.data, data)
    pairs = load_pairs(source, data=data, picture=small_picture, for_prediction=True)
    assert group_ids(pairs.dataset).tolist()[:3] == [group_ids(pairs.dataset)[0]] * 3
    assert group_ids(pairs.dataset)[3] == 3


@pytest.mark.parametrize("test", [[{"id": "t", "text": "new"}], [{"id": "t", "text": "new", "label": None}]])
def test_a_test_split_without_labels_is_left_out_and_can_be_predicted(test, trained, tmp_path, evaluate_main, caplog):
    parts = {"train": ROWS, "test": [row | {"more": number} for number, row in enumerate(test)]}
    DatasetDict({part: Dataset.from_list(rows) for part, rows in parts.items()}).save_to_disk(tmp_path / "saved")
    run = trained("--data", str(tmp_path / "saved"), "--label_column", "label")
    assert "test" not in json.loads((run / "split.json").read_text())
    assert caplog.text.count("has no labels, and is left out") == 1
    evaluate_main(run, "--predict", tmp_path / "saved", "--output", tmp_path / "answers.csv")
    with (tmp_path / "answers.csv").open() as file:
        assert [(row["id"], row["more"]) for row in csv.DictReader(file)] == [("t", "0")]


def test_weight_of_0_leaves_a_row_without_a_say(write, trained):
    """Rows of another label weigh nothing: as if they were not there."""
    split = ["--val_ratio", "0", "--train_sampling_strategy", "sequential", "--per_device_train_batch_size", "36"]
    rows = [row | {"weight": 2.5} for row in ROWS[:30]]
    idle = [row | {"weight": 0, "label": "negative"} for row in ROWS[30:]]
    flags = ["--labels", *LABELS, "--fusion_dropout", "0", *split, "--warmup_steps", "0", "--weight_column", "weight"]
    whole = trained("--data", write([*rows, *idle]), *flags, name="whole")
    other = [row | {"label": "positive"} for row in idle]
    changed = trained("--data", write([*rows, *other], "other"), *flags, name="changed")
    weights = [load_file(run / "model" / "model.safetensors") for run in (whole, changed)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    plain = trained("--data", write([*rows, *other], "plain"), *flags[:-2], name="plain")
    weights.append(load_file(plain / "model" / "model.safetensors"))
    assert not all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


@pytest.mark.parametrize("weight", [-1, "much", None])
def test_what_is_no_weight_is_a_fault_of_its_row(weight, write, trained):
    rows = [row | {"weight": weight if number == 3 else 1} for number, row in enumerate(ROWS)]
    run = trained("--data", write(rows), "--weight_column", "weight")
    with (run / "quarantine.csv").open() as file:
        assert [(row["guid"], row["reason"]) for row in csv.DictReader(file)] == [("003", "malformed_row")]


def test_several_labels_are_a_list_a_text_or_columns_of_0_and_1(write, tmp_path):
    wanted = [["joy"], ["fear", "joy"], [], ["fear"]]
    texts = [{"text": str(number)} for number in range(4)]
    ways = [
        [row | {"label": names} for row, names in zip(texts, wanted, strict=True)],
        [row | {"label": "|".join(names) or "|"} for row, names in zip(texts, wanted, strict=True)],
        [
            row | {"fear": int("fear" in names), "joy": int("joy" in names)}
            for row, names in zip(texts, wanted, strict=True)
        ],
    ]
    for number, rows in enumerate(ways):
        columns = {"label_column": ["fear", "joy"]} if number == 2 else {}
        data = settled(tmp_path, write(rows, f"way{number}"), task="multi_label", **columns)
        assert data.labels == ["fear", "joy"]
        tags = [set(row.label.split("|")) - {""} for row in open_source(data).rows(data.labels)]
        assert tags == [set(names) for names in wanted]
