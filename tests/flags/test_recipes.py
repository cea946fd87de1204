"""Recipes of --config, --sweep and --compare: what they can't mean is refused, before anything is trained."""

import time
from pathlib import Path

import pytest
import yaml
from comparing import draw_probabilities, write_run
from conftest import LABELS, TINY

import train
from evaluation.compare.comparison import compare_runs
from evaluation.compare.report import write_comparison as write_tables
from modeling.errors import InputError
from training.experiments import comparison
from training.experiments.comparison import check_comparison, read_comparison, run_comparison
from training.flags.parsing import check_command_line, parse_arguments
from training.flags.recipe import RESULT_FILES, read_recipe
from training.heads.sweep_recipe import read_sweep

TWO = "runs: {a: {}, b: {fusion: late}}\n"
SWEEP = "sweep: {fusion: [early, late]}\n"
AXES = ("seed", "learning_rate", "weight_decay", "fusion_dropout")
NINE_MILLION = ", ".join(f"{name}: [{', '.join(str(n / 1000) for n in range(55))}]" for name in AXES)
MANY_RUNS = ", ".join(f"r{number}: {{}}" for number in range(1001))


@pytest.fixture
def write(tmp_path):
    """Factory of a recipe from its text; returns its path as a word."""

    def make(text, name="recipe.yaml"):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return make


@pytest.fixture
def write_comparison(sample, tmp_path, write):
    """Factory of the recipe of a comparison over the sample's 60 pairs; returns its path as a word."""
    base = {"data_dir": str(sample), "cache_dir": str(tmp_path / "cache"), "output_dir": str(tmp_path / "out")}
    base |= {"model": "clip", "from_scratch": True, "text_config": TINY, "vision_config": TINY, "image_size": 32}
    base |= {"max_length": 16, "preprocessing_num_workers": 1, "folds": 2, "report_to": "none"}

    def make(runs, **flags):
        return write(yaml.safe_dump(base | flags | {"runs": runs}))

    return make


def refuse_to_train(*_):
    raise AssertionError("a run was trained")


def refusal(recipe, *words):
    """The sentence with which a comparison is refused before its first training."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(comparison, "cross_validate", refuse_to_train)
        with pytest.raises(InputError) as refused:
            run_comparison(read_comparison(["--compare", recipe, *words]))
    return str(refused.value)


def test_merged_keys_may_be_replaced(write):
    """Also where a mapping that merges is itself merged before it is read."""
    text = """
        runs:
          a: {text_config: &inner {<<: &base {seed: 1, fusion: late}, seed: 2}}
          b: {<<: *inner, fusion: early}
          c: {<<: [*base, *inner]}
    """
    assert read_recipe(Path(write(text)), "runs")["runs"] == {
        "a": {"text_config": {"seed": 2, "fusion": "late"}},
        "b": {"seed": 2, "fusion": "early"},
        "c": {"seed": 1, "fusion": "late"},
    }


@pytest.mark.parametrize("words", [("--config", "--config="), ("--compare", "--sweep="), ("--sweep", "--compare=")])
def test_second_recipe_is_refused(write, refusal, words):
    paths = [write(TWO, "one.yaml"), write(SWEEP, "two.yaml")]
    sentence = refusal(train.main, [words[0], paths[0], f"{words[1]}{paths[1]}"])
    assert all(path in sentence for path in paths)
    assert "one can be had at a time" in sentence


@pytest.mark.parametrize(
    ("flag", "text", "expected"),
    [
        ("--config", TWO, "has a section runs; start it with --compare, not --config"),
        ("--config", SWEEP, "has a section sweep; start it with --sweep, not --config"),
        ("--sweep", TWO, "has a section runs; start it with --compare, not --sweep"),
        ("--compare", SWEEP, "has a section sweep; start it with --sweep, not --compare"),
        ("--compare", TWO + SWEEP, "has the sections sweep and runs"),
        ("--config", "compare: other.yaml", "names another recipe (compare)"),
        ("--config", "trust-remote-code: yes", "--trust_remote_code"),
        ("--compare", "runs: {a: {}, b: {trust_remote_code: true}}", "given on the command line alone"),
        ("--sweep", f"trust_remote_code: 1\n{SWEEP}", "given on the command line alone"),
        ("--config", "learning-rate: 1\nlearning_rate: 2", "learning_rate stands twice"),
        ("--config", "save_strategy: off", "reads the bare word no as a switch"),
        ("--compare", "runs: {a: {}, b: {save_strategy: no}}", "in quotes"),
        ("--config", "fusoin: true", "Did you mean --fusion"),
        ("--config", "seed: 1\nfusion: [early, late]", "YAML reads a list"),
        ("--config", "bf16: maybe", "(case insensitive). See --help"),
        ("--config", "model: 2020-01-01", "YAML reads a date"),
        ("--config", "learning_rate: on", "reads the bare word"),
        ("--config", "output_dir: !!binary aGVsbG8=", "YAML reads a bytes"),
        ("--config", "labels: [2020-01-01, b]", "YAML reads a date"),
        ("--config", "labels: [1.0, b]", "YAML reads a number"),
        ("--config", "seed: 0x" + "f" * 9000, "a number of thousands of digits"),
        ("--config", "text_config: {a: 2020-01-01}", "not JSON serializable"),
        ("--config", "text_config: {1: 2}", "its keys must be words"),
        ("--config", "text_config: {a: .nan}", "not JSON compliant"),
        ("--config", "model: '--fusion=late'", "Got --model '--fusion=late'; allowed are"),
        ("--config", "x: " + "y" * 2**17, "at most 131,072 are read"),
        ("--sweep", "sweep: {" + NINE_MILLION + "}", "makes 9,150,625 trials; at most 10,000 are made"),
        ("--sweep", "sweep: {folds: 1000000000}", "makes 1,000,000,000 trials"),
        ("--sweep", "sweep: {fusion: [yes]}", "words like yes in quotes"),
        ("--sweep", "sweep: {learning_rate: [0.1, fast]}", "invalid float value: 'fast'"),
        ("--sweep", "sweep: 5", "has no section `sweep`"),
        ("--compare", "runs: [a, b]", "has no section `runs`"),
        ("--compare", "runs: {a: {seed: -1}, b: {}}", "The run a of the comparison: Got --seed -1"),
        ("--compare", "output_dir: [a]\nruns: {a: {}, b: {}}", "YAML reads a list"),
        ("--compare", "runs: {yes: {}, b: {}}", "Got True as the name of a run"),
        ("--compare", "runs: {a/b: {}, b: {}}", "Got 'a/b' as the name of a run"),
        ("--compare", "runs: {a: {}, comparison.md: {}}", "a file of the results"),
        ("--compare", "runs: {a: {}, b: late}", "The run b in"),
        ("--compare", "runs: {a: {}, b: {output-dir: x}}", "has output_dir, which a run can't choose"),
        ("--compare", "runs: {a: {}}", "of 2 to 1,000 runs"),
        ("--compare", "runs: {2020-01-01: {}, b: {}}", "as the name of a run"),
        ("--compare", "runs: {" + MANY_RUNS + "}", "of 2 to 1,000 runs"),
        ("--config", "[1, 2]", "is no mapping"),
        ("--config", "model: {fusion: early}\ndata: {}\ntraining: {seed: 1}\n", "is no flag of"),
        ("--config", "model: clip\nseed: 1\nseed: 2\n", "seed stands twice, in lines 2 and 3;"),
        ("--sweep", "sweep:\n  seed: [1]\nmodel: clip\nsweep:\n  fusion: [early]\n", "sweep stands twice, in lines 1"),
        ("--compare", "runs:\n  a: {seed: 1, fusion: early, seed: 2}\n", "seed stands twice, in lines 2 and 2;"),
    ],
)
def test_what_a_recipe_can_not_mean_is_refused_at_once(write, flag, text, expected):
    path, start = write(text), time.process_time()
    with pytest.raises(InputError) as refused:
        check_command_line([flag, path])
    assert expected in str(refused.value)
    assert time.process_time() - start < 5


def test_switches_quoted_words_and_dashes_are_taken(write, tmp_path):
    path = write(f'data_dir: {tmp_path}\nsave-strategy: "no"\nfrom_scratch: yes\ncache_features: no\nbf16: no\n')
    model, _, training = parse_arguments(["--config", path])
    assert (model.from_scratch, model.cache_features, training.bf16) == (True, False, False)
    assert training.save_strategy == "no"


def test_data_of_the_command_line_take_the_place_of_the_recipes(write, tmp_path):
    of_lists = write(f"data_dir: {tmp_path}\ntrain_file: other.txt\n", "lists.yaml")
    assert parse_arguments(["--config", of_lists, "--data=rows.csv"]).data.data == ["rows.csv"]
    of_tables = write("data: rows.csv\n", "tables.yaml")
    data = parse_arguments(["--config", of_tables, "--data-dir", str(tmp_path)]).data
    assert (data.data, data.data_dir) == (None, str(tmp_path))


def test_recipe_of_many_trainings_is_not_taken_for_one(write):
    with pytest.raises(InputError, match=r"which train\.py takes"):
        parse_arguments(["--sweep", write(SWEEP)])


def test_names_of_the_results_are_those_that_are_written(tmp_path):
    runs = [write_run(tmp_path, name, draw_probabilities(1, seed)) for seed, name in enumerate("ab")]
    write_tables(tmp_path / "out", compare_runs(runs))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(RESULT_FILES)


def test_folder_of_the_command_line_wins_in_both_spellings(write_comparison):
    for flag in ("--output_dir", "--output-dir"):
        recipe = read_comparison(["--compare", write_comparison({"a": {}, "b": {}}), flag, "elsewhere"])
        assert recipe.path == Path("elsewhere")
        assert [words[-1] for words in recipe.runs.values()] == ["elsewhere/a", "elsewhere/b"]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"split_file": "x.json"}, "--split_file, which splits the rows already"),
        ({"dry_run": True}, "shows one training"),
        ({"resume_from_checkpoint": "x"}, "--resume_from_checkpoint x"),
        ({"folds": None}, "it has no folds"),
        ({"folds": 80}, "Got 80 folds"),
        ({"model": "vilbert", "from_scratch": False, "text_name": "/nonexistent"}, "There is no folder '/nonexistent'"),
        ({"fusion": "lat"}, "Did you mean late"),
        ({"data_dir": "/nonexistent"}, "/nonexistent"),
        ({}, "holds other files (thesis.tex"),
    ],
)
def test_mistake_of_a_later_run_is_found_before_the_first_is_trained(write_comparison, tmp_path, second, message):
    if not second:
        (tmp_path / "out" / "b").mkdir(parents=True)
        (tmp_path / "out" / "b" / "thesis.tex").write_text("years of work")
    found = refusal(write_comparison({"a": {}, "b": second}))
    assert found.startswith("The run b of the comparison: ")
    assert message in found


def test_runs_must_judge_the_same_rows_by_the_same_labels(write_comparison, make_pairs, sample):
    lines = (sample / "train.txt").read_text().splitlines()
    (sample / "fewer.txt").write_text("\n".join(lines[:-3]) + "\n")
    guid = lines[1].split(",")[0]
    (sample / "other.txt").write_text("\n".join([lines[0], f"{guid},neutral", *lines[2:]]) + "\n")
    other = make_pairs([(f"x{number}", LABELS[number % 3]) for number in range(30)], folder="others")
    for second, message in (
        ({"train_file": "fewer.txt"}, "a 60, b 57, of which 57 are common to all. Give all runs the same data_dir"),
        ({"data_dir": str(other)}, "a 60, b 30, of which 0 are common to all. Give all runs the same data_dir"),
        (
            {"train_file": "other.txt"},
            f"1 of 60 rows have one label in a and another one in b, first the guid '{guid}'",
        ),
        ({"labels": [*LABELS, "mixed"]}, "a has negative, neutral, positive and b has"),
    ):
        assert message in refusal(write_comparison({"a": {}, "b": second}))


def test_other_folds_classes_in_another_order_and_copies_are_no_mistake(write_comparison, sample, tmp_path):
    """Data are prepared once: what is to be overwritten was, while it was checked."""
    (sample / "data" / "0_t1.txt").write_text("a day as bad")
    (sample / "data" / "0_t1.jpg").write_bytes((sample / "data" / "0.jpg").read_bytes())
    (sample / "more.txt").write_text((sample / "train.txt").read_text() + "0_t1,negative\n")
    runs = {"a": {"train_file": "more.txt"}, "b": {"folds": 3, "seed": 7, "labels": list(LABELS[::-1])}, "c": None}
    checked = check_comparison(read_comparison(["--compare", write_comparison(runs, overwrite_cache=True)]))
    found = {name: (args.folds, args.seed, args.output_dir) for name, (_, _, args) in checked.items()}
    folds = {"a": (2, 42), "b": (3, 7), "c": (2, 42)}
    assert found == {name: (*folds[name], str(tmp_path / "out" / name)) for name in "abc"}
    assert {args.resume_from_checkpoint for _, _, args in checked.values()} == {"latest"}
    assert {data.overwrite_cache for _, data, _ in checked.values()} == {False}


@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        ("folds: 3\n" + SWEEP, [], "Got folds, which is taken from the section sweep: write `folds: 5` there"),
        ("seeds: 3\n" + SWEEP, [], r"write `seed: \[42, 43, 44\]` there"),
        (SWEEP, ["--folds", "3"], "Got folds, which is taken from the section"),
        ("sweep: {learning_rate: [1e-2, 1e-5]}\n", ["--head-learning-rate=1e-3"], "only frozen towers would have"),
        ("sweep: {weight-decay: [0.1], weight_decay: [0.2]}\n", [], "weight_decay stands twice .* in two spellings"),
        ("weight_decay: 0.1\nsweep: {weight-decay: [0.2]}\n", [], "weight_decay stands twice .* section sweep"),
        ("sweep: {folds: 1}\n", [], "at least 2"),
        ("sweep: {folds: true}\n", [], "at least 2"),
        ("sweep: {seed: [0, 0.0]}\n", [], "each of them once"),
        ("sweep: {head_learning_rate: [0.001, 1e-3]}\n", [], "each of them once"),
    ],
)
def test_what_a_sweep_would_ignore_or_do_twice_is_refused(write, text, words, message):
    with pytest.raises(InputError, match=message):
        read_sweep(["--sweep", write(text), "--data_dir", "x", *words])


def test_rate_of_the_command_line_takes_the_place_of_a_swept_one(write):
    recipe = write("head-learning-rate: 0.01\nsweep: {learning-rate: [0.1, 0.2], seed: [1, 2]}\n")
    sweep = read_sweep(["--sweep", recipe, "--data_dir", "x", "--model", "clip", "--learning_rate", "0.3"])
    assert [trial.values for trial in sweep.trials] == [{"seed": "1"}, {"seed": "2"}]
    assert {trial.flags.training.learning_rate for trial in sweep.trials} == {0.3}
    assert {trial.flags.training.head_learning_rate for trial in sweep.trials} == {0.01}
