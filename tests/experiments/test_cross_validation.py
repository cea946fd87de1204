"""train.py --folds: every row is judged by models that never saw it, and what was cut off goes on."""

import json
import runpy
import shutil

import numpy as np
import pytest
import yaml
from conftest import LABELS, ROOT, TELLING_WORDS, TINY, draw_photo, read_csv

import train
from evaluation.arguments import parse_arguments
from evaluation.scores.calibration import apply_temperature
from evaluation.scores.metrics import classification_metrics
from evaluation.scores.out_of_fold import calibrate_folds
from evaluation.tasks.session import run_evaluation
from modeling.errors import InputError
from run_files.folds_folder import FoldsFolder
from run_files.predictions_csv import read_predictions_csv


def write_pairs(folder):
    """48 pairs whose text tells the label but for every eighth; each text stands in two of them."""
    (folder / "data").mkdir(parents=True)
    lines = ["guid,tag"]
    for number in range(48):
        label = LABELS[number % 24 % 3]
        text = TELLING_WORDS[LABELS[(number % 24 + (number % 8 == 0)) % 3]]
        (folder / "data" / f"{number}.txt").write_text(f"{text} {number % 24}")
        draw_photo(number).save(folder / "data" / f"{number}.jpg")
        lines.append(f"{number},{label}")
    (folder / "train.txt").write_text("\n".join(lines) + "\n")
    (folder / "new.txt").write_text("".join(f"{number},null\n" for number in (3, 1, 3, 2)))
    return folder


GO_ON = ("--val_ratio", "0.2", "--resume_from_checkpoint", "latest")


def flags_of(root, *flags):
    argv = ["--data_dir", str(root / "pairs"), "--cache_dir", str(root / "cache"), "--output_dir", str(root / "run")]
    argv += ["--from_scratch", "--text_config", json.dumps(TINY), "--vision_config", json.dumps(TINY)]
    argv += ["--fusion", "early", "--image_size", "32", "--max_length", "16", "--preprocessing_num_workers", "1"]
    argv += ["--num_train_epochs", "2", "--learning_rate", "1e-2", "--report_to", "none", "--disable_tqdm", "true"]
    return [*argv, "--folds", "2", "--seeds", "2", "--seed", "7", *flags]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with pairs/ and a finished run/ of 2 folds by 2 seeds."""
    root = tmp_path_factory.mktemp("folds")
    write_pairs(root / "pairs")
    train.main(flags_of(root, "--val_ratio", "0.2"))
    return root


@pytest.fixture
def folder(root):
    """The finished run."""
    return FoldsFolder.find(root / "run")


@pytest.fixture
def copied(root, tmp_path):
    """A copy of the finished run, and the flags to go on with it."""
    shutil.copytree(root / "run", tmp_path / "run")
    return tmp_path / "run", flags_of(root, *GO_ON, "--output_dir", str(tmp_path / "run"))


def evaluate_run(run, *words):
    run_evaluation(parse_arguments([str(run), *map(str, words)]))


def read_json(path):
    return json.loads(path.read_text())


def test_every_row_is_judged_by_models_that_never_saw_it_or_its_twin(folder):
    assert (folder.num_folds, folder.seeds) == (2, (7, 8))
    held_out = {7: [], 8: []}
    for member in folder.members():
        split = read_json(member.path / "split.json")
        twins = {str((int(guid) + 24) % 48) for guid in split["test"]}
        assert not {*split["test"], *twins} & {*split["train"], *split["val"]}
        assert not set(split["val"]) & set(split["train"])
        assert set(read_predictions_csv(member.path / "predictions_test.csv").guids) == set(split["test"])
        held_out[member.seed] += split["test"]
    assert all(sorted(guids, key=int) == [str(number) for number in range(48)] for guids in held_out.values())


def test_figures_are_those_of_the_joined_predictions(folder):
    scores = read_json(folder.metrics_file)["out_of_fold"]
    tables = {seed: read_predictions_csv(folder.predictions_oof_file_of(seed)) for seed in folder.seeds}
    for seed, table in tables.items():
        metrics = classification_metrics(table.probabilities, table.labels, LABELS)
        assert scores["seeds"][str(seed)]["macro_f1"] == pytest.approx(metrics["macro_f1"])
    accuracies = [scores["seeds"][str(seed)]["accuracy"] for seed in folder.seeds]
    assert scores["mean"]["accuracy"] == pytest.approx(np.mean(accuracies))
    assert scores["std"]["accuracy"] == pytest.approx(np.std(accuracies, ddof=1))
    mean = np.mean([table.probabilities for table in tables.values()], axis=0)
    assert read_predictions_csv(folder.predictions_oof_file).probabilities == pytest.approx(mean, abs=1e-6)


def test_temperature_of_a_fold_knows_nothing_of_its_labels_and_is_its_models_own(folder):
    before = calibrate_folds(folder)
    assert read_json(folder.path / "calibration.json")["num_rows"] == 48  # each once, for the interval
    joined = read_predictions_csv(folder.predictions_oof_file_of(7))
    for member in folder.members():
        config = read_json(member.path / "model" / "config.json")
        assert config["temperature"] == pytest.approx(before[member.fold])
        if member.seed == 7:
            raw = read_predictions_csv(member.path / "predictions_test.csv")
            rows = [joined.guids.index(guid) for guid in raw.guids]
            scaled = apply_temperature(raw.probabilities, before[member.fold])
            assert joined.probabilities[rows] == pytest.approx(scaled, abs=1e-6)
            evaluate_run(member.path, "--split", "test")
            metrics = classification_metrics(joined.probabilities[rows], joined.labels[rows], LABELS)
            assert read_json(member.path / "evaluation_test.json")["ece"] == pytest.approx(metrics["ece"], abs=1e-5)


def test_evaluation_gives_the_same_probabilities_and_scores(folder, capsys):
    evaluate_run(folder.path)
    found = read_json(folder.path / "evaluation_test.json")
    averaged = read_json(folder.metrics_file)["out_of_fold"]["averaged"]
    assert found["num_rows"] == 48
    for name in ("accuracy", "macro_f1", "ece"):
        assert found[name] == pytest.approx(averaged[name], abs=1e-5)
    assert "out of fold: 48 rows" in capsys.readouterr().out
    for words, named in (
        (["--split", "train"], "only what each fold held out"),
        (["--contributions", "--abstain", "0.5"], "goes with plain scoring"),
    ):
        with pytest.raises(InputError, match=named):
            evaluate_run(folder.path, *words)


@pytest.mark.parametrize("way", ["ablation", "contributions", "robustness"])
def test_other_judgements_are_out_of_fold_too(folder, way):
    evaluate_run(folder.path, f"--{way}")
    found = read_json(folder.path / f"{way}_test.json")
    assert found.get("num_rows", found.get("overall", {}).get("rows")) == 48


def test_prediction_is_the_mean_of_all_models(root, folder, tmp_path):
    members = folder.members()
    for run in (folder.path, *(member.path for member in members)):
        evaluate_run(run, "--predict", root / "pairs" / "new.txt", "--output", tmp_path / f"{run.name}.txt")

    def probabilities(run):
        rows = read_csv(tmp_path / f"{run.name}.probabilities.csv")
        return np.array([[float(row[f"prob_{label}"]) for label in LABELS] for row in rows])

    expected = np.mean([probabilities(member.path) for member in members], axis=0)
    assert probabilities(folder.path) == pytest.approx(expected, abs=2e-6)
    assert [line.split(",")[0] for line in (tmp_path / "run.txt").read_text().splitlines()] == ["3", "1", "3", "2"]


def test_prediction_names_rows_that_were_trained_on_and_adds_contributions_and_abstention(
    root, folder, tmp_path, caplog, capsys
):
    words = ["--predict", root / "pairs" / "train.txt", "--output", tmp_path / "p.txt"]
    evaluate_run(folder.path, *words, "--contributions", "--abstain", "0.4")
    trained = set().union(*(read_json(member.path / "split.json")["train"] for member in folder.members()))
    assert f"{len(trained)} rows have the guids of rows that the run was trained on" in caplog.text
    rows = read_csv(tmp_path / "p.probabilities.csv")
    assert set(rows[0]) >= {"shapley_text", "shapley_image", "synergy", "answered"}
    assert {row["answered"] for row in rows} <= {"yes", "no"}
    assert read_json(tmp_path / "p.contributions.json")["overall"]["rows"] == 48
    assert "abstaining for an accuracy of 0.400" in capsys.readouterr().out


def test_comparison_command_reads_the_run(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")  # or the entry sets it for all tests that follow
    shutil.copytree(folder.path, tmp_path / "same", ignore=shutil.ignore_patterns("members"))
    # Imported under its own name, the file gives way to the package of that name.
    entry = runpy.run_path(str(ROOT / "evaluate.py"), run_name="entry")
    entry["main"](["compare", str(folder.path), str(tmp_path / "same")])
    assert "cannot tell" in capsys.readouterr().out


def test_cut_off_run_is_named_goes_on_and_ends_the_same(folder, copied):
    run, words = copied
    (run / "metrics.json").unlink()
    with pytest.raises(InputError, match=r"no metrics.json yet"):
        evaluate_run(run)
    (run / "predictions_oof.csv").unlink()
    shutil.rmtree(run / "members" / "seed-8-fold-1")
    with pytest.raises(InputError, match="1 unfinished trainings"):
        evaluate_run(run)
    kept = run / "members" / "seed-7-fold-0" / "metrics.json"
    when = kept.stat().st_mtime_ns
    train.main(words)
    assert kept.stat().st_mtime_ns == when
    assert (run / "predictions_oof.csv").read_text() == folder.predictions_oof_file.read_text()
    FoldsFolder.find(run).check_complete()


def test_damaged_figures_of_a_member_are_named(copied, refusal):
    run, words = copied
    (run / "metrics.json").unlink()
    damaged = run / "members" / "seed-7-fold-1" / "metrics.json"
    damaged.write_text(damaged.read_text()[:100])
    assert f"{damaged} is no JSON" in refusal(train.main, words)


def test_training_moves_a_run_of_folds_aside_even_where_it_should_go_on(copied, tmp_path):
    run, words = copied
    del words[words.index("--folds") : words.index("--seed")]
    train.main([*words, "--max_steps", "1"])
    (aside,) = tmp_path.glob("run.old-*")
    FoldsFolder.find(aside).check_complete()
    assert FoldsFolder.find(run) is None


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--split_file", "x.json"], "splits the rows already"),
        (["--dry_run"], "shows one training"),
        (["--folds", "1"], "--folds 1; it takes 2 or more"),
        (["--folds", "40"], "allowed are 2 to"),
        (["--resume_from_checkpoint", "latest", "--seed", "9", "--val_ratio", "0.2"], "other flags, data or folds"),
    ],
)
def test_what_does_not_go_together_is_refused(root, refusal, flags, named):
    assert named in refusal(train.main, flags_of(root, *flags))


def test_towers_run_once_for_all_folds_of_an_augmented_list(tmp_path):
    pairs = write_pairs(tmp_path / "pairs")
    lines = (pairs / "train.txt").read_text()
    for number in range(0, 48, 5):
        (pairs / "data" / f"{number}_t1.txt").write_text(f"another way to say {number}")
        shutil.copy(pairs / "data" / f"{number}.jpg", pairs / "data" / f"{number}_t1.jpg")
        lines += f"{number}_t1,{LABELS[number % 24 % 3]}\n"
    (pairs / "train_augmented.txt").write_text(lines)
    once = ["--seeds", "1", "--val_ratio", "0", "--freeze", "both", "--train_file", "train_augmented.txt"]
    # The picture alone: from scratch each fold has a vocabulary, and so a text tower, of its own.
    train.main(flags_of(tmp_path, *once, "--num_train_epochs", "1", "--fusion", "image_only"))
    assert len([path for path in (tmp_path / "cache").glob("features-*") if path.is_dir()]) == 1
    assert len(read_predictions_csv(tmp_path / "run" / "predictions_oof.csv").guids) == 48


def test_comparison_recipe_trains_each_run_and_writes_the_tables(root, tmp_path, refusal):
    words = flags_of(root)
    recipe = {"val_ratio": 0, "runs": {"both": {"fusion": "early"}, "text": {"fusion": "text_only"}}}
    base = {"text_config": TINY, "vision_config": TINY, "from_scratch": True}
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(base | recipe))
    kept = ["--data_dir", "--cache_dir", "--image_size", "--max_length", "--preprocessing_num_workers", "--report_to"]
    rest = [word for flag in kept for word in words[words.index(flag) : words.index(flag) + 2]]
    rest += ["--num_train_epochs", "1", "--folds", "2", "--disable_tqdm", "true", "--output_dir", str(tmp_path / "out")]
    rest = ["--compare", str(tmp_path / "two.yaml"), *rest]
    train.main(rest)
    table = (tmp_path / "out" / "comparison.md").read_text()
    assert all(name in table for name in ("both", "text", "always"))
    assert (tmp_path / "out" / "comparison.png").stat().st_size > 1000
    trained = tmp_path / "out" / "text" / "members" / "seed-42-fold-1" / "metrics.json"
    when = trained.stat().st_mtime_ns
    train.main(rest)  # finished runs are left as they are
    assert trained.stat().st_mtime_ns == when
    assert "other flags" in refusal(train.main, [*rest, "--weight_decay", "0.5"])
