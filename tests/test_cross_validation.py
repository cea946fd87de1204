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
from run_files.run_folder import RunFolder


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
    return [*argv, "--folds", "3", "--seeds", "2", "--seed", "7", *flags]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with pairs/ and a finished run/ of 3 folds by 2 seeds."""
    root = tmp_path_factory.mktemp("folds")
    write_pairs(root / "pairs")
    train.main(flags_of(root, "--val_ratio", "0.2"))
    return root


def evaluate_run(root, *words):
    run_evaluation(parse_arguments([str(root / "run"), *words]))


def test_every_row_is_judged_by_models_that_never_saw_it_or_its_twin(root):
    folder = FoldsFolder.find(root / "run")
    assert (folder.num_folds, folder.seeds) == (3, (7, 8))
    held_out = {7: [], 8: []}
    for member in folder.members():
        split = json.loads((member.path / "split.json").read_text())
        twins = {str((int(guid) + 24) % 48) for guid in split["test"]}
        assert not {*split["test"], *twins} & {*split["train"], *split["val"]}
        assert not set(split["val"]) & set(split["train"])
        judged = read_predictions_csv(member.path / "predictions_test.csv")
        assert set(judged.guids) == set(split["test"])
        held_out[member.seed] += split["test"]
    expected = [str(number) for number in range(48)]
    assert all(sorted(guids) == sorted(expected) for guids in held_out.values())


def test_figures_are_those_of_the_joined_predictions(root):
    folder = FoldsFolder.find(root / "run")
    scores = json.loads(folder.metrics_file.read_text())["out_of_fold"]
    tables = {seed: read_predictions_csv(folder.predictions_oof_file_of(seed)) for seed in folder.seeds}
    for seed, table in tables.items():
        metrics = classification_metrics(table.probabilities, table.labels, LABELS)
        assert scores["seeds"][str(seed)]["macro_f1"] == pytest.approx(metrics["macro_f1"])
    accuracies = [scores["seeds"][str(seed)]["accuracy"] for seed in folder.seeds]
    assert scores["mean"]["accuracy"] == pytest.approx(np.mean(accuracies))
    assert scores["std"]["accuracy"] == pytest.approx(np.std(accuracies, ddof=1))
    mean = np.mean([table.probabilities for table in tables.values()], axis=0)
    assert read_predictions_csv(folder.predictions_oof_file).probabilities == pytest.approx(mean, abs=1e-6)


def test_temperature_of_a_fold_knows_nothing_of_its_labels(root):
    folder = FoldsFolder.find(root / "run")
    before = calibrate_folds(folder)
    assert json.loads((folder.path / "calibration.json").read_text())["num_rows"] == 48  # each once, for the interval
    joined = read_predictions_csv(folder.predictions_oof_file_of(7))
    for member in folder.members():
        config = json.loads((member.path / "model" / "config.json").read_text())
        assert config["temperature"] == pytest.approx(before[member.fold])
        if member.seed == 7:
            raw = read_predictions_csv(member.path / "predictions_test.csv")
            rows = [joined.guids.index(guid) for guid in raw.guids]
            scaled = apply_temperature(raw.probabilities, before[member.fold])
            assert joined.probabilities[rows] == pytest.approx(scaled, abs=1e-6)


def test_evaluation_gives_the_same_probabilities_and_scores(root, capsys):
    evaluate_run(root)
    found = json.loads((root / "run" / "evaluation_test.json").read_text())
    averaged = json.loads((root / "run" / "metrics.json").read_text())["out_of_fold"]["averaged"]
    assert found["num_rows"] == 48
    for name in ("accuracy", "macro_f1", "ece"):
        assert found[name] == pytest.approx(averaged[name], abs=1e-5)
    assert "out of fold: 48 rows" in capsys.readouterr().out


@pytest.mark.parametrize("way", ["ablation", "contributions", "robustness"])
def test_other_judgements_are_out_of_fold_too(root, way):
    evaluate_run(root, f"--{way}")
    found = json.loads((root / "run" / f"{way}_test.json").read_text())
    assert found.get("num_rows", found.get("overall", {}).get("rows")) == 48


def test_prediction_is_the_mean_of_all_models(root, tmp_path):
    lists = ["--predict", str(root / "pairs" / "new.txt"), "--output"]
    evaluate_run(root, *lists, str(tmp_path / "all.txt"))
    members = list(FoldsFolder.find(root / "run").members())
    for member in members:
        words = [str(member.path), *lists, str(tmp_path / f"{member.path.name}.txt")]
        run_evaluation(parse_arguments(words))

    def probabilities(name):
        rows = read_csv(tmp_path / f"{name}.probabilities.csv")
        return np.array([[float(row[f"prob_{label}"]) for label in LABELS] for row in rows])

    expected = np.mean([probabilities(member.path.name) for member in members], axis=0)
    assert probabilities("all") == pytest.approx(expected, abs=2e-6)
    assert [line.split(",")[0] for line in (tmp_path / "all.txt").read_text().splitlines()] == ["3", "1", "3", "2"]


def test_labelled_rows_that_were_trained_on_are_named(root, tmp_path, caplog):
    words = ["--predict", str(root / "pairs" / "train.txt"), "--output", str(tmp_path / "p.txt")]
    evaluate_run(root, *words)
    splits = [
        json.loads((member.path / "split.json").read_text()) for member in FoldsFolder.find(root / "run").members()
    ]
    trained = set().union(*(split["train"] for split in splits))
    assert f"{len(trained)} rows have the guids of rows that the run was trained on" in caplog.text


def test_member_is_judged_by_its_own_temperature(root, tmp_path, capsys):
    member = root / "run" / "members" / "seed-7-fold-0"
    run_evaluation(parse_arguments([str(member), "--split", "test"]))
    found = json.loads((member / "evaluation_test.json").read_text())
    joined = read_predictions_csv(FoldsFolder.find(root / "run").predictions_oof_file_of(7))
    rows = [joined.guids.index(guid) for guid in json.loads((member / "split.json").read_text())["test"]]
    metrics = classification_metrics(joined.probabilities[rows], joined.labels[rows], LABELS)
    assert found["ece"] == pytest.approx(metrics["ece"], abs=1e-5)


def test_prediction_with_contributions_and_abstention(root, tmp_path, capsys):
    words = ["--predict", str(root / "pairs" / "new.txt"), "--output", str(tmp_path / "p.txt")]
    evaluate_run(root, *words, "--contributions", "--abstain", "0.4")
    rows = read_csv(tmp_path / "p.probabilities.csv")
    assert set(rows[0]) >= {"shapley_text", "shapley_image", "synergy", "answered"}
    assert {row["answered"] for row in rows} <= {"yes", "no"}
    assert json.loads((tmp_path / "p.contributions.json").read_text())["overall"]["rows"] == 4
    assert "abstaining for an accuracy of 0.400" in capsys.readouterr().out


def test_comparison_command_reads_the_run(root, capsys, monkeypatch):
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")  # or the entry sets it for all tests that follow
    shutil.copytree(root / "run", root / "same", ignore=shutil.ignore_patterns("members"), dirs_exist_ok=True)
    # Imported under its own name, the file gives way to the package of that name.
    entry = runpy.run_path(str(ROOT / "evaluate.py"), run_name="entry")
    entry["main"](["compare", str(root / "run"), str(root / "same")])
    assert "cannot tell" in capsys.readouterr().out


def test_cut_off_run_goes_on_and_ends_the_same(root, tmp_path):
    whole = root / "run"
    shutil.copytree(root / "pairs", tmp_path / "pairs")
    shutil.copytree(whole, tmp_path / "run")
    for name in ("metrics.json", "predictions_oof.csv"):
        (tmp_path / "run" / name).unlink()
    lost = tmp_path / "run" / "members" / "seed-8-fold-1"
    shutil.rmtree(lost)
    kept = tmp_path / "run" / "members" / "seed-7-fold-0" / "metrics.json"
    when = kept.stat().st_mtime_ns
    # The same rows and flags as of the first start, or its folds wouldn't be these.
    train.main(flags_of(root, *GO_ON, "--output_dir", str(tmp_path / "run")))
    assert kept.stat().st_mtime_ns == when
    assert (tmp_path / "run" / "predictions_oof.csv").read_text() == (whole / "predictions_oof.csv").read_text()
    assert RunFolder(lost).metrics_file.is_file()


def test_damaged_figures_of_a_member_are_named(root, tmp_path, refusal):
    shutil.copytree(root / "run", tmp_path / "run")
    (tmp_path / "run" / "metrics.json").unlink()
    damaged = tmp_path / "run" / "members" / "seed-7-fold-1" / "metrics.json"
    damaged.write_text(damaged.read_text()[:100])
    words = flags_of(root, *GO_ON, "--output_dir", str(tmp_path / "run"))
    assert f"{damaged} is no JSON" in refusal(train.main, words)


def test_training_moves_a_run_of_folds_aside_even_where_it_should_go_on(root, tmp_path):
    shutil.copytree(root / "run", tmp_path / "run")
    words = flags_of(root, "--output_dir", str(tmp_path / "run"), "--resume_from_checkpoint", "latest")
    del words[words.index("--folds") : words.index("--seed")]
    train.main([*words, "--max_steps", "1"])
    (aside,) = tmp_path.glob("run.old-*")
    FoldsFolder.find(aside).check_complete()
    assert FoldsFolder.find(tmp_path / "run") is None


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


def test_evaluation_of_other_parts_is_refused(root):
    with pytest.raises(InputError, match="only what each fold held out"):
        evaluate_run(root, "--split", "train")
    with pytest.raises(InputError, match="goes with plain scoring"):
        evaluate_run(root, "--contributions", "--abstain", "0.5")


def test_unfinished_run_is_named(root, tmp_path):
    shutil.copytree(root / "run", tmp_path / "run")
    (tmp_path / "run" / "members" / "seed-8-fold-2" / "metrics.json").unlink()
    with pytest.raises(InputError, match="1 unfinished trainings"):
        run_evaluation(parse_arguments([str(tmp_path / "run")]))
    shutil.copytree(root / "run", tmp_path / "again")
    (tmp_path / "again" / "metrics.json").unlink()
    with pytest.raises(InputError, match=r"no metrics.json yet"):
        run_evaluation(parse_arguments([str(tmp_path / "again")]))


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
    train.main(["--compare", str(tmp_path / "two.yaml"), *rest])
    table = (tmp_path / "out" / "comparison.md").read_text()
    assert all(name in table for name in ("both", "text", "always"))
    assert (tmp_path / "out" / "comparison.png").stat().st_size > 1000
    trained = tmp_path / "out" / "text" / "members" / "seed-42-fold-1" / "metrics.json"
    when = trained.stat().st_mtime_ns
    train.main(["--compare", str(tmp_path / "two.yaml"), *rest])  # finished runs are left as they are
    assert trained.stat().st_mtime_ns == when
    # But not taken for runs of other flags.
    other = ["--compare", str(tmp_path / "two.yaml"), *rest, "--weight_decay", "0.5"]
    assert "other flags" in refusal(train.main, other)
