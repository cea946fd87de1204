"""Files about the project that would go stale unseen: pins, recipes, hooks, change log."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions, version

import pytest
import yaml
from conftest import ROOT
from packaging.requirements import Requirement
from pre_commit.clientlib import load_config

from training.experiments.comparison import read_comparison
from training.flags.parsing import check_command_line, parse_arguments
from training.flags.recipe import to_flags
from training.heads.sweep_recipe import read_sweep

PACKAGES = ("data_utils", "demo", "evaluation", "modeling", "pair_classifier", "run_files", "training")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def read_pins(name):
    lines = [line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    return dict(line.split("==") for line in lines if "==" in line)


def imported_names():
    """Top-level names that the program imports, anywhere in its files."""
    files = [
        ROOT / "train.py",
        ROOT / "evaluate.py",
        *(path for name in PACKAGES for path in (ROOT / name).rglob("*.py")),
    ]
    for node in (node for file in files for node in ast.walk(ast.parse(file.read_text()))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt", "requirements-demo.txt"])
def test_pins_are_the_versions_under_test(name):
    assert read_pins("requirements.txt")["torch"] == "2.13.0"
    # torch==2.13.0 is also satisfied by a local build of it, such as 2.13.0+cpu.
    assert {package: version(package).split("+")[0] for package in read_pins(name)} == read_pins(name)


@pytest.mark.parametrize("tested", ["requirements.txt", "launchers/gpu/machine.txt", "launchers/gpu/missing.txt"])
def test_ranges_hold_what_was_tested(tested):
    ranges = {requirement.name: requirement.specifier for requirement in map(Requirement, PROJECT["dependencies"])}
    pins = {package.replace("_", "-"): pin for package, pin in read_pins(tested).items()}
    assert set(ranges) <= set(pins) or tested != "requirements.txt"
    assert {name: pin for name, pin in pins.items() if name in ranges and pin not in ranges[name]} == {}


def test_every_package_that_is_imported_is_required():
    own = {*PACKAGES, "train"}
    distributions = packages_distributions()
    optional = (Requirement(line).name for lines in PROJECT["optional-dependencies"].values() for line in lines)
    required = {name.replace("-", "_") for name in (*read_pins("requirements.txt"), *optional)}
    foreign = set(imported_names()) - own - sys.stdlib_module_names - {"_typeshed"}  # which is of types alone
    names = {module: {name.lower().replace("-", "_") for name in distributions[module]} for module in foreign}
    assert {module for module, found in names.items() if not found & required} == set()


@pytest.mark.parametrize("recipe", sorted(path.name for path in (ROOT / "configs").glob("*.yaml")))
def test_recipe_is_accepted(recipe):
    path = ROOT / "configs" / recipe
    content = yaml.safe_load(path.read_text())
    if "sweep" in content:
        trainings = [read_sweep(["--sweep", str(path)]).trials[0].flags.training]
    elif "tune" in content:
        check_command_line(["--tune", str(path), "--trials", "2"])
        trainings = [parse_arguments(to_flags({name: value for name, value in content.items() if name != "tune"}))[2]]
    elif "runs" in content:
        trainings = [parse_arguments(words)[2] for words in read_comparison(["--compare", str(path)]).runs.values()]
        assert all(training.folds == 5 for training in trainings)
    else:
        trainings = [parse_arguments(["--config", str(path)])[2]]
    assert all(training.output_dir.startswith("runs/") for training in trainings)


def test_quickstart_recipe_reads_what_make_draws():
    model, data, training = parse_arguments(["--config", str(ROOT / "configs" / "quickstart.yaml")])
    assert (model.model, model.fusion, model.from_scratch) == ("clip", "attn", True)
    makefile = dict(re.findall(r"^(\w+) := (.*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert (data.data_dir, training.output_dir) == (makefile["SAMPLE"], makefile["RUN"])


def test_hooks_run_the_ruff_that_make_lint_runs():
    hooks = load_config(ROOT / ".pre-commit-config.yaml")["repos"][0]["hooks"]
    assert [hook["entry"].split()[:2] for hook in hooks] == [[".venv/bin/ruff", "check"], [".venv/bin/ruff", "format"]]


def test_change_log_speaks_of_this_version():
    assert f"## [{PROJECT['version']}]" in (ROOT / "CHANGELOG.md").read_text()
