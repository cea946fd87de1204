"""training.baselines: every row is judged once, on train.py's folds, and a second run gives the same."""

import json
import shutil

import numpy as np
import pytest
import yaml
from conftest import draw_photo
from tiny import LABELS, TEXTS, save_encoders

from data_utils.splits.split_file import load_split
from evaluation.arguments import parse_comparison
from evaluation.compare.report import run_compare
from evaluation.compare.runs import read_run
from evaluation.scores.metrics import classification_metrics
from run_files.predictions_csv import read_predictions_csv
from run_files.run_folder import RunFolder
from training import baselines
from training.experiments import cross_validation
from training.experiments.baseline_run import run_baselines
from training.flags.parsing import parse_arguments

NAMES = ("majority", "text", "image", "both")
NUM_ROWS = 48


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """pairs/, encoders that pass for pretrained ones, and the baselines' folder out/.

    Half of the labels are positive; rows 24 apart are twins; the text tells the label, the picture doesn't. Row 5 has
    no text, and rows 8 and 9 no picture.
    """
    root = tmp_path_factory.mktemp("baselines")
    (root / "pairs" / "data").mkdir(parents=True)
    lines = ["guid,tag"]
    for number in range(NUM_ROWS):
        label = LABELS[min(number % 24 % 4, 2)]
        lines.append(f"{number},{label}")
        if number != 5:
            (root / "pairs" / "data" / f"{number}.txt").write_text(f"{TEXTS[label]} {number % 24}")
        if number not in (8, 9):
            draw_photo(number).save(root / "pairs" / "data" / f"{number}.jpg")
    (root / "pairs" / "train.txt").write_text("\n".join(lines) + "\n")
    save_encoders(root)
    baselines.main(flags_of(root))
    return root


def flags_of(root, *flags):
    argv = ["--data_dir", str(root / "pairs"), "--cache_dir", str(root / "cache"), "--output_dir", str(root / "out")]
    argv += ["--model", "vilbert", "--text_name", str(root / "text"), "--vision_name", str(root / "vision")]
    argv += ["--preprocessing_num_workers", "1", "--max_length", "12", "--text_pooling", "mean", "--report_to", "none"]
    return [*argv, "--folds", "3", "--seed", "7", *flags]


def test_folds_are_those_of_a_training_with_the_same_seed(root, tmp_path, monkeypatch):
    run = tmp_path / "run"
    flags = parse_arguments(flags_of(root, "--val_ratio", "0.2", "--seeds", "2", "--output_dir", str(run)))
    monkeypatch.setattr(cross_validation, "train", None)  # once the folds are written
    with pytest.raises(TypeError):
        cross_validation.cross_validate(flags)
    for fold in range(3):
        ours, theirs = (load_split(folder / "splits" / f"fold-{fold}.json") for folder in (root / "out", run))
        assert ours.test == theirs.test
        assert theirs.val
        assert ours.train == tuple(sorted({*theirs.train, *theirs.val}))
        assert not {int(guid) % 24 for guid in ours.train} & {int(guid) % 24 for guid in ours.test}


def test_comparison_takes_the_files_beside_a_run(root, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(root / "out" / "text.csv", run / "predictions_oof.csv")
    files = [str(root / "out" / f"{name}.csv") for name in ("majority", "both")]
    assert [read_run(path, path).kind for path in (*files, str(run))] == ["file", "file", "folds"]
    run_compare(parse_comparison([*files, str(run)]))
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("majority.csv", "both.csv", "run"))


def test_majority_is_the_share_in_the_training_part(root):
    table = read_predictions_csv(root / "out" / "majority.csv")
    label_of = dict(zip(table.guids, table.labels.tolist(), strict=True))
    found = dict(zip(table.guids, table.probabilities, strict=True))
    for fold in range(3):
        split = load_split(root / "out" / "splits" / f"fold-{fold}.json")
        shares = np.bincount([label_of[guid] for guid in split.train], minlength=3) / len(split.train)
        assert all(found[guid] == pytest.approx(shares, abs=1e-8) for guid in split.test)
    assert set(table.answers) == {2}


def test_every_row_is_judged_once_and_figures_are_those_of_the_predictions(root):
    metrics = json.loads((root / "out" / "metrics.json").read_text())
    for name in NAMES:
        table, found = read_predictions_csv(root / "out" / f"{name}.csv"), metrics["baselines"][name]
        assert list(table.guids) == sorted(str(number) for number in range(NUM_ROWS))
        assert table.label_names == LABELS
        expected = classification_metrics(table.probabilities, table.labels, LABELS)
        for figure in ("accuracy", "macro_f1"):
            assert found[figure] == pytest.approx(expected[figure])
            low, high = found[f"{figure}_interval"]
            assert low <= found[figure] <= high
    assert "strengths" not in metrics["baselines"]["majority"]
    assert all(len(metrics["baselines"][name]["strengths"]) == 3 for name in NAMES[1:])
    accuracy = {name: metrics["baselines"][name]["accuracy"] for name in NAMES}
    assert accuracy["text"] > accuracy["majority"] + 0.2  # the words tell the label, even to a random encoder
    assert accuracy["both"] > accuracy["image"]


def test_second_run_reads_the_cache_and_writes_the_same(root, tmp_path, caplog):
    first = {path.name: path.read_bytes() for path in (root / "out").iterdir() if path.suffix in (".csv", ".json")}
    cached = {path: path.stat().st_mtime_ns for path in (root / "cache").glob("features-*/*.arrow")}
    assert len(cached) == 2
    shutil.copytree(root / "out", tmp_path / "out")
    (tmp_path / "out" / "note.txt").write_text("mine")
    baselines.main(flags_of(root, "--output_dir", str(tmp_path / "out")))
    assert "found in the cache" in caplog.text
    (table,) = [record.getMessage() for record in caplog.records if "macro-F1" in record.getMessage()]
    assert [line.split()[0] for line in table.splitlines()[2:6]] == [*NAMES]
    assert "held an earlier run" in caplog.text
    assert (tmp_path / "out.old-1" / "note.txt").is_file()
    assert not (tmp_path / "out" / "note.txt").exists()
    assert {name: (tmp_path / "out" / name).read_bytes() for name in first} == first
    assert {path: path.stat().st_mtime_ns for path in (root / "cache").glob("features-*/*.arrow")} == cached


def test_recipe_of_a_training_gives_data_and_towers_alone(root, tmp_path, monkeypatch):
    """Its own head, frozen parts, epochs and output folder play no part."""
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    recipe = {"output_dir": str(tmp_path / "run"), "fusion": "text_only", "freeze": "text", "unfreeze_last": 1}
    recipe |= {"cache_features": False, "seeds": 3, "train_sampling_strategy": "group_by_length", "val_ratio": 0.3}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe | {"early_stopping_patience": 2}))
    words = flags_of(root)
    where = words.index("--output_dir")
    flags = baselines.read_flags(["--config", str(tmp_path / "recipe.yaml"), *words[:where], *words[where + 2 :]])
    assert flags.training.output_dir == baselines.OUTPUT_DIR
    assert (flags.model.freeze, flags.model.unfreeze_last, flags.model.cache_features) == ("both", None, True)
    run_baselines(flags._replace(training=flags.training.replace(output_dir=str(tmp_path / "out"))))
    for name in NAMES:
        assert (tmp_path / "out" / f"{name}.csv").read_bytes() == (root / "out" / f"{name}.csv").read_bytes()


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--streaming"], "--streaming, which has no rows"),
        (["--split_file", "x.json"], "splits the rows already"),
        (["--max_train_samples", "9"], "--max_train_samples"),
        (["--dry_run"], "--dry_run"),
        (["--resume_from_checkpoint", "latest"], "--resume_from_checkpoint"),
        (["--folds", "1"], "--folds 1"),
        (["--folds", "40"], "allowed are 2 to"),
        (["--sweep", "x.yaml"], "--sweep"),
        (["--fold", "3"], "Did you mean --folds"),
    ],
)
def test_flags_that_make_no_sense_are_refused(root, tmp_path, refusal, flags, named):
    assert named in refusal(baselines.main, flags_of(root, "--output_dir", str(tmp_path / "out"), *flags))
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_folds_towers_and_one_process_are_needed(root, tmp_path, refusal, monkeypatch):
    words = flags_of(root, "--output_dir", str(tmp_path / "out"))
    where = words.index("--folds")
    scratch = ["--data_dir", str(root / "pairs"), "--model", "vilbert", "--from_scratch", "--folds", "3"]
    for argv, named in (
        ([*words[:where], *words[where + 2 :]], "--folds is missing"),
        (scratch, "random"),
        ([*scratch[:2], "--model", "baseline", "--folds", "3"], "random"),
    ):
        assert named in refusal(baselines.main, argv)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "one process" in refusal(baselines.main, words)


def test_folder_of_a_training_is_left_alone(root, tmp_path, refusal):
    run = RunFolder(tmp_path / "run")
    run.save_arguments({name: {} for name in ("model", "data", "training", "environment")})
    before = run.config_file.read_bytes()
    assert "holds a training run" in refusal(baselines.main, flags_of(root, "--output_dir", str(run.path)))
    assert run.config_file.read_bytes() == before
    assert [path.name for path in run.path.iterdir()] == ["config.yaml"]
