"""Command lines: quick answers, groups of --help, the flag that was meant, and Trainer's flags as Trainer has them."""

import dataclasses
import json
import subprocess
import sys
from enum import Enum
from pathlib import Path
from typing import get_type_hints

import pytest
from transformers import TrainingArguments

import train
from data_utils.console.command_line import FlagParser, _base
from data_utils.console.flag_hints import SYNONYMS
from evaluation.arguments import parse_arguments as parse_evaluation
from evaluation.arguments import parse_comparison
from modeling.choices import FUSIONS
from modeling.errors import InputError
from modeling.fusion import FUSION_HEADS
from training.flags.arguments import SentimentTrainingArguments
from training.flags.of_trainer import read_trainer_flags
from training.flags.own import EvaluationFlags, OutputFlags, TrainingFlags
from training.flags.parsing import build_parser, check_command_line, parse_arguments

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "transformers", "datasets", "accelerate", "pandas", "scipy", "sklearn", "matplotlib", "gradio")
# A main, its words, and its exit code.
STARTS = [
    ("train.py", "--help", 0),
    ("train.py", "--help_all", 0),
    ("train.py", "--lerning_rate 1", 2),
    ("train.py", "--learning_rate fast", 2),
    ("train.py", "--data_dir d --fusion atn", 2),
    ("train.py", "--data_dir d --config {recipe}", 2),
    ("train.py", "--compare {comparison}", 2),
    ("evaluate.py", "--help", 0),
    ("evaluate.py", "RUN --ablaton", 2),
    ("evaluate.py", "runs/mistyped", 2),
    ("evaluate.py", "compare --help", 0),
    ("evaluate.py", "compare a b --outptu c", 2),
    ("data_utils.sample", "--help", 0),
    ("data_utils.sample", "--outptu_dir d", 2),
    ("data_utils.shard", "--help", 0),
    ("data_utils.shard", "--data_dir d --output_dir o --shard_format tar", 2),
    ("demo", "--help", 0),
    ("demo", "runs/mistyped", 2),
    ("data_utils.augment", "--help", 0),
    ("data_utils.augment", "--data_dir d", 2),
    ("training.baselines", "--help", 0),
    ("training.baselines", "--lerning_rate 1", 2),
    ("training.selfcheck", "--help", 0),
    ("training.selfcheck", "--config_file nowhere.yaml", 2),
]
PROGRAM = """
import contextlib, io, json, runpy, sys
found = []
for name, words in json.loads(sys.argv[1]):
    sys.argv, code, output = [name, *words], 0, io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            (runpy.run_path if name.endswith(".py") else runpy.run_module)(name, run_name="__main__")
        except SystemExit as end:
            code = end.code or 0
    found.append([code, output.getvalue(), [each for each in HEAVY if each in sys.modules]])
print(json.dumps(found))
"""


def test_help_and_typing_errors_need_no_heavy_import(tmp_path):
    (tmp_path / "recipe").write_text("fusoin: attn\n")
    (tmp_path / "comparison").write_text("runs: {a: {lerning_rate: 1}, b: {}}\n")
    places = {name: str(tmp_path / name) for name in ("recipe", "comparison")}
    starts = [(name, words.format(**places).split()) for name, words, _ in STARTS]
    command = [sys.executable, "-c", f"HEAVY = {HEAVY}\n{PROGRAM}", json.dumps(starts)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for (name, words, expected), (code, output, imported) in zip(STARTS, json.loads(done.stdout), strict=True):
        assert (code, imported) == (expected, []), (name, words, output)
        assert output.count("error: ") == (expected == 2)


def test_module_is_named_as_it_is_started():
    command = [sys.executable, "-m", "data_utils.augment", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: python -m data_utils.augment ")


def test_refusal_is_all_that_a_quiet_launch_says(tmp_path):
    flags = "--quiet --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no"
    command = [sys.executable, "-m", "accelerate.commands.launch", *flags.split(), str(ROOT / "train.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1  # accelerate's for any failure
    assert done.stderr.startswith("error: --data_dir is missing, and neither data/project5 nor data in ")
    assert done.stderr.count("\n") == 1


def test_help_has_groups_and_leaves_trainer_to_help_all(capsys):
    texts = {}
    for flag in ("--help", "--help_all"):
        with pytest.raises(SystemExit) as end:
            train.main([flag])
        assert end.value.code == 0
        texts[flag] = capsys.readouterr().out
    titles = [line.removesuffix(":") for line in texts["--help"].splitlines() if line.endswith(":") and line[0] != " "]
    assert titles == ["options", "model", "data", "training", "evaluation", "output", "recipes"]
    assert "--torch_compile" not in texts["--help"]
    assert "--torch_compile" in texts["--help_all"]
    assert len(texts["--help"].splitlines()) < 280


def test_help_is_printed_by_one_of_the_processes_of_a_machine(monkeypatch, capsys):
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(SystemExit):
        check_command_line(["--help"])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("--lr 1", "--learning_rate?"),
        ("-lr 1", "--learning_rate?"),
        ("--batch-size 4", "--per_device_train_batch_size?"),
        ("--epochs=3", "--num_train_epochs?"),
        ("--warmup_ratio 0.1", "--warmup_steps 0.1?"),
        ("--group-by-length", "--train_sampling_strategy group_by_length?"),
        ("--dataset x", "--data?"),
        ("--output x", "--output_dir?"),
        ("--fp32", "--bf16 no?"),
        ("--learning-rat 1", "--learning_rate?"),
        ("--num_processes 2", "in front of the program"),
        ("--jit_mode_eval", "--torch_compile?"),
        ("--per-gpu-train-batch-size 4", "--per_device_train_batch_size?"),
        ("--overwrite_output_dir", "moved aside by itself"),
        ("RUN --batch_size 4", "--per_device_eval_batch_size?"),
        ("RUN --workers 2", "--dataloader_num_workers?"),
        ("RUN --output-dir x", "--output?"),
        ("RUN --fp32", "--mixed_precision no?"),
    ],
)
def test_flag_that_was_meant_is_named(words, meant):
    with pytest.raises(InputError) as refused:
        (parse_evaluation if words.startswith("RUN") else check_command_line)(words.split())
    assert "which is no flag of" in str(refused.value)
    assert meant in str(refused.value)


def test_switch_is_written_in_every_spelling_of_a_recipe():
    for word, value in (("on", True), ("OFF", False), ("Yes", True), ("n", False), ("1", True)):
        assert build_parser("").parse(["--torch_compile", word]) == {"torch_compile": value}


def test_every_hint_is_a_flag_of_a_program_and_no_flag_has_a_hint():
    known = set(build_parser("")._option_string_actions)
    elsewhere = {"--output", "--mixed_precision", "--predict"}
    for name, flags in SYNONYMS.items():
        assert f"--{name}" not in known
        assert all(f"--{flag.split()[0]}" in known | elsewhere for flag in flags)


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        ("--config", "lr: 1"),
        ("--sweep", "lr: 1\nsweep: {fusion: [early]}"),
        ("--sweep", "sweep: {lr: [1, 2]}"),
        ("--compare", "runs: {a: {lr: 1}, b: {}}"),
    ],
)
def test_flag_that_was_meant_is_named_with_its_recipe(tmp_path, flag, text):
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(InputError) as refused:
        check_command_line([flag, str(tmp_path / "recipe.yaml")])
    assert f"'--lr' in the recipe {tmp_path / 'recipe.yaml'}, which is no flag" in str(refused.value)
    assert "Did you mean --learning_rate?" in str(refused.value)


def test_dashes_are_underscores_in_both_programs():
    given = parse_evaluation(["RUN", "--data-dir=a-b", "--per-device-eval-batch-size", "4"])
    assert (given.data_dir, given.per_device_eval_batch_size, given.dataloader_num_workers) == ("a-b", 4, 0)
    assert parse_comparison(["a", "b", "--common-rows"]).common_rows
    model, data, training = parse_arguments(["--data-dir", "a-b", "--from-scratch", "--no-dataloader-pin-memory"])
    assert (model.from_scratch, data.data_dir, training.dataloader_pin_memory) == (True, "a-b", False)


def test_trainer_flags_are_those_of_the_installed_trainer():
    flags = {flag.name: flag for flag in read_trainer_flags(without=())}
    fields = {field.name: field for field in dataclasses.fields(TrainingArguments) if field.init}
    assert list(flags) == list(fields)
    kinds = get_type_hints(TrainingArguments)
    for name, flag in flags.items():
        base = _base(kinds[name])
        is_own_type = isinstance(base, type) and (issubclass(base, Enum) or base.__module__.startswith("accelerate"))
        may_stand_alone = base is str and fields[name].metadata.get("const") is True  # as --fsdp
        assert _base(flag.kind) == (str | bool if may_stand_alone else str if is_own_type else base), name
        if flag.default is not None:
            assert flag.default == fields[name].default


def test_our_fields_win_over_trainers():
    ours = [field for group in (TrainingFlags, EvaluationFlags, OutputFlags) for field in dataclasses.fields(group)]
    found = {field.name: field.default for field in dataclasses.fields(SentimentTrainingArguments)}
    assert {field.name: field.default for field in ours}.items() <= found.items()
    kinds = get_type_hints(TrainingArguments)
    own = {name: kind for group in (TrainingFlags, OutputFlags) for name, kind in get_type_hints(group).items()}
    for name in kinds.keys() & own.keys() - {"group", "report_to"}:  # which takes several trackers here
        assert _base(own[name]) == _base(kinds[name]), name


def test_heads_read_what_the_flags_say():
    assert FUSIONS.keys() == FUSION_HEADS.keys()
    for name, head in FUSION_HEADS.items():
        assert set(head.reads_tokens) <= set(FUSIONS[name])


@dataclasses.dataclass
class Kinds:
    """A field of each kind of value."""

    number: int = dataclasses.field(metadata={"help": "Has to be given, 100 % of the time."})
    switch: bool = dataclasses.field(default=True, metadata={"help": ""})
    maybe: bool | None = dataclasses.field(default=None, metadata={"help": ""})
    either: str | bool = dataclasses.field(default="no", metadata={"help": ""})
    several: list[int] | None = dataclasses.field(default=None, metadata={"help": ""})
    table: dict[str, int] | None = dataclasses.field(default=None, metadata={"help": ""})
    word: int | str | None = dataclasses.field(default=None, metadata={"help": ""})


@pytest.mark.parametrize(
    ("words", "values"),
    [
        ("--switch no --maybe", {"switch": False, "maybe": True}),
        ("--no_switch --maybe FALSE", {"switch": False, "maybe": False}),
        ("--either all", {"either": "all"}),
        ("--either no", {"either": False}),
        ("--several 1 -2 3 --word 7", {"several": [1, -2, 3], "word": "7"}),
        ('--table {"a":1}', {"table": {"a": 1}}),
    ],
)
def test_words_become_values_of_their_kind(words, values):
    assert FlagParser(Kinds).parse(["--number", "-1", *words.split()]) == {"number": -1} | values


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--switch", "required: --number"),
        ("--number 1 --switch maybe", "allowed are yes, true"),
        ("--number 1 --table [1]", "give a JSON object"),
        ("--number 1 --table {", "which is no JSON"),
        ("--number 1 --table " + "[" * 50_000, "which is no JSON"),
        ("--number 1 --table " + "9" * 200_000, "at most 100,000"),
        ("--number 1 2", "Got '2' behind a flag that takes one value"),
        ("--number 1 word", "word"),
        ("word --number 1", "Got 'word', which is no flag of"),
        ("number --number 1", "Did you mean --number?"),
    ],
)
def test_what_is_no_value_is_refused(words, message):
    with pytest.raises(InputError) as refused:
        FlagParser(Kinds).parse(words.split())
    assert message in str(refused.value)
