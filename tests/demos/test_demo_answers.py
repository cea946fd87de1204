"""The page's answers without its server: as evaluate.py gives them; CSV files, examples, flags, the container."""

import base64
import csv
import io
import json
import re
import shutil

import numpy as np
import pytest
import yaml
from conftest import ROOT, read_csv

from demo.answers import Pair, serve_runs
from demo.arguments import parse_arguments
from demo.batch import answer_csv, disarm
from demo.examples import find_examples
from modeling.errors import InputError

pytestmark = pytest.mark.usefixtures("fresh_state")
ABSTENTION = {"wanted_accuracy": 0.8, "temperature": 1.5, "chosen": {"threshold": 0.4}}
GUIDS = ("p3", "p11", "p40")


@pytest.fixture
def serve(fresh_state):
    return lambda run, *flags: serve_runs(parse_arguments([str(run), *flags]))[0]


@pytest.fixture
def pairs(tiny_pairs):
    """Texts and pictures of `GUIDS`."""
    folder = tiny_pairs / "data"
    return [Pair((folder / f"{guid}.txt").read_text(), (folder / f"{guid}.jpg").read_bytes()) for guid in GUIDS]


def to_csv(*rows):
    content = io.StringIO()
    csv.writer(content).writerows(rows)
    return content.getvalue().encode()


def from_csv(content):
    return list(csv.DictReader(io.StringIO(content.decode(), newline="")))


def test_answers_are_those_of_a_prediction(tiny_run, pairs, serve, evaluate_main, tmp_path):
    listed = tmp_path / "asked.txt"
    listed.write_text("".join(["guid,tag\n", *(f"{guid},null\n" for guid in GUIDS)]))
    flags = ("--output", tmp_path / "answers.txt", "--contributions")
    evaluate_main(tiny_run.path, "--predict", listed, *flags)
    predicted = read_csv(tmp_path / "answers.probabilities.csv")

    run = serve(tiny_run.path)
    together = run.ask(pairs)
    for number, (pair, row) in enumerate(zip(pairs, predicted, strict=True)):
        for found in (run.to_dict(together, number), run.to_dict(run.ask([pair]), 0)):
            values = {f"prob_{name}": value for name, value in found["probabilities"].items()}
            values |= {name: found[name] for name in ("shapley_text", "shapley_image", "synergy")}
            assert found["answer"] == row["prediction"]
            assert values == {name: pytest.approx(float(row[name]), abs=1e-6) for name in values}


def test_run_abstains_by_what_the_evaluation_learned(tiny_run, pairs, serve, tmp_path):
    shutil.copytree(tiny_run.path, tmp_path / "run")
    assert "answered" not in serve(tmp_path / "run").ask(pairs).columns

    (tmp_path / "run" / "abstention.json").write_text(json.dumps(ABSTENTION))
    answers = serve(tmp_path / "run").ask(pairs)
    scaled = answers.probabilities ** (1 / 1.5)
    confidence = (scaled / scaled.sum(axis=1, keepdims=True)).max(axis=1)
    np.testing.assert_allclose(answers.columns["confidence"], confidence)
    assert answers.columns["answered"].tolist() == (confidence >= 0.4).tolist()

    (tmp_path / "run" / "abstention.json").write_text(json.dumps(ABSTENTION | {"temperature": "warm"}))
    with pytest.raises(InputError, match="temperature"):
        serve(tmp_path / "run")


@pytest.mark.parametrize("task", ["multi_label", "regression"])
def test_other_tasks_are_answered_without_contributions(tiny_run, pairs, serve, tmp_path, task):
    folder = tmp_path / "run"
    shutil.copytree(tiny_run.path, folder)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["data"] |= {"task": task} | ({"labels": ["value"]} if task == "regression" else {})
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    model = json.loads((folder / "model" / "config.json").read_text())
    kinds = {"multi_label": "multi_label_classification", "regression": "regression"}
    (folder / "model" / "config.json").write_text(json.dumps(model | {"problem_type": kinds[task]}))
    if task == "regression":
        with pytest.raises(InputError):  # its model has three outputs
            serve(folder)
        return
    found = serve(folder).to_dict(serve(folder).ask(pairs), 0)
    assert set(found) == {"run", "answer", "probabilities"}
    over = [name for name, value in found["probabilities"].items() if value >= 0.5]
    assert found["answer"] == ("|".join(over) or "|")


def test_csv_has_an_answer_for_each_row_in_its_order(tiny_run, pairs, serve):
    run, arguments = serve(tiny_run.path), parse_arguments([str(tiny_run.path)])
    encoded = [base64.b64encode(pair.picture).decode() for pair in pairs]
    rows = [
        ["id", "text", "image"],
        *([guid, pair.text, cell] for guid, pair, cell in zip(GUIDS, pairs, encoded, strict=True)),
    ]
    rows += [
        ["=1+1", "@SUM(A1)", "/etc/passwd"],
        ["-3", "", ""],
        ["+x", pairs[0].text, f"data:image/jpeg;base64,{encoded[0]}"],
    ]
    found = from_csv(answer_csv(run, to_csv(*rows), arguments))

    assert [row["id"] for row in found] == [*GUIDS, "'=1+1", "-3", "'+x"]
    assert found[3]["text"] == "'@SUM(A1)"
    assert "image" not in found[0]
    assert [bool(row["fault"]) for row in found] == [False, False, False, True, True, False]
    assert "unreadable image" in found[3]["fault"]
    assert "passwd" not in found[3]["fault"]
    expected = run.ask(pairs)
    for number, row in enumerate([*found[:3], found[5]]):
        said = run.to_dict(expected, number % 3)
        assert row["prediction"] == said["answer"]
        assert [float(row[f"prob_{name}"]) for name in run.label_names] == pytest.approx(
            list(said["probabilities"].values()), abs=1e-6
        )


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b"id,words\n1,a\n", "no column 'text'"),
        (b"text,prediction\na,b\n", "rename it"),
        (b"text\n", "0 rows"),
        (b"text\n" + b"a\n" * 5, "5 rows"),
        (b"text\n" + b"a" * 101 + b"\n", "101 characters"),
        (b"\x89PNG\r\n\x1a\n\0\0", "CSV"),
        (b'text\n"open', "isn't closed"),
    ],
)
def test_csv_that_is_not_taken_is_told_in_one_sentence(tiny_run, serve, content, told):
    run = serve(tiny_run.path)
    arguments = parse_arguments([str(tiny_run.path), "--max_rows", "4", "--max_text_length", "100"])
    with pytest.raises(InputError, match=re.escape(told)):
        answer_csv(run, content, arguments)


@pytest.mark.parametrize("cell", ["=1+1", "+A1", "-A1", "@x", "\t=1", "\r=1", "\uff1d1"])
def test_cells_that_spreadsheets_compute_are_disarmed(cell):
    assert disarm(cell) == f"'{cell}"


def test_cells_that_are_numbers_or_words_stay(tiny_run):
    assert [disarm(cell) for cell in ("-0.5", "+3", "1e5", "a=b", "", None)] == ["-0.5", "+3", "1e5", "a=b", "", ""]


def test_examples_are_held_out_rows_of_each_label(tiny_run, tiny_pairs, serve, caplog, tmp_path):
    ensemble = serve(tiny_run.path).ensemble
    examples = find_examples(ensemble, 4)
    assert [pair.text.split()[0] for pair in examples] == ["p0", "p1", "p2", "p3"]
    assert examples[3].picture == (tiny_pairs / "data" / "p3.jpg").read_bytes()
    assert find_examples(ensemble, 0) == []

    shutil.copytree(tiny_run.path, tmp_path / "run")
    config = (tmp_path / "run" / "config.yaml").read_text().replace(str(tiny_pairs), str(tmp_path / "gone"))
    (tmp_path / "run" / "config.yaml").write_text(config)
    assert find_examples(serve(tmp_path / "run").ensemble, 4) == []
    assert "no examples" in caplog.text


@pytest.mark.parametrize(
    "words",
    ["--max_rows 0 RUN", "--server_port 70000 RUN", "--examples -1 RUN", "--share RUN", "", "--max_upload_mb nan RUN"],
)
def test_wrong_flags_are_told(words):
    with pytest.raises(InputError):
        parse_arguments(words.split())


def test_container_and_space_start_the_page():
    docker = (ROOT / "demo" / "space" / "Dockerfile").read_text()
    command = json.loads(re.search(r"^CMD (\[.*\])$", docker, flags=re.MULTILINE)[1])
    assert command[:3] == ["python", "-m", "demo"]
    arguments = parse_arguments(command[3:])
    assert (arguments.server_name, arguments.server_port) == ("0.0.0.0", 7860)
    for line in re.findall(r"^COPY (?!--)(.*)$", docker, flags=re.MULTILINE):
        assert [name for name in line.split()[:-1] if "$" not in name and not (ROOT / name).exists()] == []
    _, front, _ = (ROOT / "demo" / "space" / "README.md").read_text().split("---\n", 2)
    settings = yaml.safe_load(front)
    assert (settings["sdk"], settings["app_port"]) == ("docker", arguments.server_port)
