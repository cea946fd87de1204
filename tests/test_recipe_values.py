"""Values of recipes that no flag takes: one sentence, before heavy imports and before any list is built."""

import time

import pytest

from modeling.errors import InputError
from training.flags.parsing import check_command_line

AXES = ("seed", "learning_rate", "weight_decay", "fusion_dropout")
NINE_MILLION = ", ".join(f"{name}: [{', '.join(str(n / 1000) for n in range(55))}]" for name in AXES)
MANY_RUNS = ", ".join(f"r{number}: {{}}" for number in range(1001))


@pytest.mark.parametrize(
    ("flag", "text", "expected"),
    [
        ("--config", "model: 2020-01-01", "which YAML reads as a date"),
        ("--config", "model: [clip]", "which YAML reads as a list"),
        ("--config", "model: {a: 1}", "which YAML reads as a map"),
        ("--config", "output_dir: !!binary aGVsbG8=", "which YAML reads as a bytes"),
        ("--config", "learning_rate: [1, 2]", "which YAML reads as a list"),
        ("--config", "learning_rate: on", "learning_rate is no switch"),
        ("--config", "labels: {a: 1, b: 2}", "which YAML reads as a map"),
        ("--config", "labels: [2020-01-01, b]", "put words like yes, no or 1.0 in quotes"),
        ("--config", "seed: 0x" + "f" * 9000, "a number of 36,000 bits"),
        ("--config", "labels: [0x" + "f" * 9000 + ", b]", "a number of 36,000 bits"),
        ("--config", "text_config: {a: 2020-01-01}", "no JSON can be made"),
        ("--config", "text_config: {1: 2}", "its keys must be words"),
        ("--config", "text_config: {a: .nan}", "no JSON can be made"),
        ("--config", "model: '--fusion=late'", "Got --model '--fusion=late'; allowed are"),
        ("--config", "num_train_epochs: .inf", "at most 1,000,000"),
        ("--config", "x: " + "y" * 2**17, "at most 131,072 are read"),
        ("--sweep", "sweep: {" + NINE_MILLION + "}", "makes 9,150,625 trials; at most 10,000 are made"),
        ("--sweep", "sweep: {folds: 1000000000}", "makes 1,000,000,000 trials"),
        ("--sweep", "sweep: {fusion: [yes]}", "words like yes in quotes"),
        ("--sweep", "sweep: {fusion: [2020-01-01]}", "it takes a list of words or numbers"),
        ("--sweep", "sweep: {seed: [0x" + "f" * 9000 + "]}", "a number of 36,000 bits"),
        ("--sweep", "sweep: {learning_rate: [0.1, .inf]}", "Got --learning_rate inf"),
        ("--sweep", "sweep: {learning_rate: [0.1, fast]}", "invalid float value: 'fast'"),
        ("--sweep", "sweep: 5", "has no section `sweep`"),
        ("--compare", "runs: [a, b]", "has no section `runs`"),
        ("--compare", "runs: {2020-01-01: {}, b: {}}", "as the name of a run"),
        ("--compare", "runs: {a: {fusion: 2020-01-01}, b: {}}", "which YAML reads as a date"),
        ("--compare", "runs: {a: {seed: -1}, b: {}}", "The run a of the comparison: Got --seed -1"),
        ("--compare", "output_dir: [a]\nruns: {a: {}, b: {}}", "which YAML reads as a list"),
        ("--compare", "runs: {" + MANY_RUNS + "}", "has 1,001 runs; at most 1,000"),
        ("--config", "[1, 2]", "is no mapping"),
        ("--config", "just words", "is no mapping"),
    ],
)
def test_value_that_no_flag_takes_is_refused_at_once(tmp_path, flag, text, expected):
    base = "" if "mapping" in expected else "data_dir: data\n"
    (tmp_path / "recipe.yaml").write_text(base + text)
    start = time.process_time()
    with pytest.raises(InputError) as refused:
        check_command_line([flag, str(tmp_path / "recipe.yaml")])
    assert expected in str(refused.value)
    assert time.process_time() - start < 5
