"""Runs of tables whose data moved or were changed, and tables that are asked, by hostile or careless hands."""

from __future__ import annotations

import csv
import datetime
import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import read_csv
from evaluating import LABELS

WRONG = (5, {}, {"a": "b"}, [], [""], [5], ["a", ["b"]], True, "gone", ["gone.csv"], ["/dev/zero"], ["["])


@pytest.fixture
def write(tmp_path):
    """Factory of a table as Parquet; returns its path."""

    def make(rows, name="rows.parquet"):
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name)
        return tmp_path / name

    return make


@pytest.fixture
def table_run(tiny_run, tiny_pairs, tmp_path):
    """A run of a table whose columns were named; returns its folder and the table's rows."""
    run = tmp_path / "run"
    shutil.copytree(tiny_run.path, run)
    with (tiny_pairs / "train.txt").open() as file:
        listed = list(csv.reader(file))[1:]
    folder = tiny_pairs / "data"
    rows = [
        {"name": guid, "words": (folder / f"{guid}.txt").read_text(), "photo": str(folder / f"{guid}.jpg"), "mood": tag}
        for guid, tag in listed
    ]
    (tmp_path / "asked.jsonl").write_text("\n".join(map(json.dumps, rows)))
    columns = {"text_column": ["words"], "image_column": "photo", "label_column": ["mood"], "id_column": "name"}
    content = yaml.safe_load((run / "config.yaml").read_text())
    content["data"] |= columns | {"data": [str(tmp_path / "asked.jsonl")], "data_dir": str(tmp_path)}
    (run / "config.yaml").write_text(yaml.safe_dump(content))
    return run, rows


def test_answers_keep_every_cell(table_run, evaluate_main, write, tmp_path):
    run, rows = table_run
    columns = {
        "words": [row["words"] for row in rows],
        "photo": [row["photo"] for row in rows],
        "number": pa.array([None, *range(1234567890123456789, 1234567890123456789 + len(rows) - 1)]),
        "share": [0.1234567890123456] * len(rows),
        "day": [datetime.date(2020, 1, 2)] * len(rows),
        "several": [list(range(2000))] * len(rows),
        "line": ['a\rb\nc"'] * len(rows),
        "nothing": [float("nan")] * len(rows),
    }
    pq.write_table(pa.table(columns), tmp_path / "types.parquet")
    for name in ("out.csv", "out.jsonl", "out.parquet"):
        evaluate_main(run, "--predict", tmp_path / "types.parquet", "--output", tmp_path / name)
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    expected = {
        "number": 1234567890123456789,
        "share": 0.1234567890123456,
        "day": "2020-01-02",
        "several": list(range(2000)),
        "line": 'a\rb\nc"',
        "nothing": None,
    }
    assert len(found) == len(rows)
    assert {name: found[1][name] for name in expected} == expected
    row = read_csv(tmp_path / "out.csv")[1]
    assert json.loads(row.pop("several")) == expected.pop("several")
    assert {name: row[name] for name in expected} == {name: str(value or "") for name, value in expected.items()}
    answers = pq.read_table(tmp_path / "out.parquet").to_pydict()
    assert answers["number"] == columns["number"].to_pylist()
    assert answers["prediction"] == [row["prediction"] for row in found]


def test_a_prediction_needs_no_label_and_no_names(table_run, evaluate_main, write, tmp_path):
    run, rows = table_run
    evaluate_main(run, "--predict", tmp_path / "asked.jsonl", "--output", tmp_path / "all.csv")
    asked = write([{"words": row["words"], "photo": row["photo"]} for row in rows])
    evaluate_main(run, "--predict", asked, "--output", tmp_path / "few.csv")
    renamed = write([{"w": row["words"], "p": row["photo"]} for row in rows], "renamed.parquet")
    flags = ("--text_column", "w", "--image_column", "p")
    evaluate_main(run, "--predict", renamed, *flags, "--output", tmp_path / "renamed.csv")
    (all_, few, other) = (read_csv(tmp_path / f"{name}.csv") for name in ("all", "few", "renamed"))
    assert [row["name"] for row in all_] == [row["name"] for row in rows]
    assert [row["prob_neutral"] for row in few] == [row["prob_neutral"] for row in all_]
    assert [row["prob_neutral"] for row in other] == [row["prob_neutral"] for row in all_]


@pytest.mark.parametrize(
    ("rows", "output", "words"),
    [
        ([{"words": "a", "photo": None, "prob_neutral": 1}], "out.csv", ["'prob_neutral'", "rename"]),
        ([{"words": "a", "photo": None, "confidence": 1}], "out.parquet", ["'confidence'", "rename"]),
        ([{"words": "a", "photo": None, "prediction": 1}], "out.jsonl", ["'prediction'", "rename"]),
        ([{"text": "a"}], "out.csv", ["'words'", "'text'"]),
        ([{"words": ["a"], "photo": None}], "out.csv", ["'words'", "list<"]),
        ([{"words": "a", "photo": None}], "out.txt", [".csv, .jsonl"]),
        ([{"words": "a", "photo": None}], "asked.parquet", ["asked.parquet", "read here"]),
    ],
)
def test_an_asked_table_that_does_not_fit_is_told(rows, output, words, table_run, evaluate_main, write, refusal):
    path = write(rows, "asked.parquet")
    before = path.read_bytes()
    sentence = refusal(evaluate_main, table_run[0], "--predict", path, "--output", path.with_name(output))
    assert all(word in sentence for word in words), sentence
    assert path.read_bytes() == before


def test_what_parquet_can_not_hold_is_told_beforehand(table_run, evaluate_main, refusal, tmp_path):
    (tmp_path / "odd.jsonl").write_text('{"words": "a", "photo": null, "more": {}}\n')
    flags = (table_run[0], "--predict", tmp_path / "odd.jsonl", "--output")
    assert ".csv" in refusal(evaluate_main, *flags, tmp_path / "out.parquet")
    evaluate_main(*flags, tmp_path / "out.csv")
    assert read_csv(tmp_path / "out.csv")[0]["more"] == "{}"


@pytest.mark.parametrize("content", ["[1]\n[2]\n", '{"a": 1}\n', ""])
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".csv"])
def test_a_foreign_file_is_no_earlier_answer(suffix, content, table_run, evaluate_main, refusal, tmp_path):
    output = tmp_path / f"out{suffix}"
    flags = (table_run[0], "--predict", tmp_path / "asked.jsonl", "--output", output)
    evaluate_main(*flags)
    if suffix == ".parquet":
        pq.write_table(pa.table({"a": [1]} if content else {"prediction": pa.array([], pa.string())}), output)
    else:
        output.write_text(content or "a\n")
    before = output.read_bytes()
    assert "would overwrite" in refusal(evaluate_main, *flags)
    assert output.read_bytes() == before


def test_a_folder_of_pairs_is_no_table(table_run, tiny_run, tiny_pairs, evaluate_main, refusal, tmp_path):
    for run in (table_run[0], tiny_run.path):
        sentence = refusal(evaluate_main, run, "--predict", tiny_pairs, "--output", tmp_path / "out.csv")
        assert "folder of pairs" in sentence


def test_a_table_that_moved_is_named_anew(table_run, tiny_pairs, evaluate_main, refusal, tmp_path, capfd):
    run, _ = table_run
    evaluate_main(run)
    before = capfd.readouterr().out
    (tmp_path / "asked.jsonl").rename(tmp_path / "moved.jsonl")
    assert "asked.jsonl" in refusal(evaluate_main, run)
    assert "--data" in refusal(evaluate_main, run, "--data_dir", tmp_path)
    assert "--data and --data_dir" in refusal(evaluate_main, run, "--data", "x.csv", "--data_dir", tmp_path)
    evaluate_main(run, "--data", tmp_path / "moved.jsonl")
    assert capfd.readouterr().out == before
    evaluate_main(run, "--data", tiny_pairs)  # the same pairs as a list
    assert capfd.readouterr().out == before


@pytest.mark.parametrize(
    "name",
    [
        *("data", "val_data", "test_data", "train_split", "val_split", "test_split", "text_column", "image_column"),
        *("label_column", "id_column", "weight_column", "image_dir", "allow_urls", "task", "labels"),
    ],
)
def test_a_run_whose_data_section_was_changed_ends_in_one_sentence(name, table_run, evaluate_main, refusal):
    path = table_run[0] / "config.yaml"
    content = yaml.safe_load(path.read_text())
    allowed = {
        **{"val_split": "none", "test_split": "none", "text_column": [], "label_column": []},
        **{"allow_urls": True, "data": None, "val_data": None, "test_data": None},
    }
    for value in (*WRONG, LABELS[::-1]):
        if value == allowed.get(name, ...):
            continue
        path.write_text(yaml.safe_dump(content | {"data": content["data"] | {name: value}}))
        assert refusal(evaluate_main, table_run[0]), value


def test_labels_of_another_order_than_the_models_are_refused(table_run, evaluate_main, refusal):
    path = table_run[0] / "config.yaml"
    content = yaml.safe_load(path.read_text())
    for labels in (list(LABELS)[::-1], None, [*LABELS, "other"]):
        path.write_text(yaml.safe_dump(content | {"data": content["data"] | {"labels": labels}}))
        assert "labels" in refusal(evaluate_main, table_run[0])
