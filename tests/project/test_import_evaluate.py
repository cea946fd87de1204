"""`import evaluate` means the installed package although evaluate.py lies on the path (one test per way of starting).

Most tests import a stand-in package, which loads in no time; evaluate.py cannot tell it from the real one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
CHECK = """
import evaluate
assert evaluate.Metric.__name__ == "Metric", evaluate
from evaluate.utils.logging import get_logger
assert get_logger.__module__ == "evaluate.utils.logging"
print("imported", evaluate.__file__)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the repository's evaluate.py, and beside it programs that import the package."""
    folder = tmp_path / "project"
    folder.mkdir()
    shutil.copy(REPOSITORY / "evaluate.py", folder)
    (folder / "program.py").write_text(CHECK)
    (folder / "test_program.py").write_text("def test_import():\n" + CHECK.replace("\n", "\n    "))
    library = "from evaluate.utils.logging import get_logger\nimport evaluate\nevaluate.Metric\nprint('imported')\n"
    (folder / "library.py").write_text(library)
    return folder


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with a package `evaluate` that has what the programs ask for."""
    package = tmp_path / "site" / "evaluate"
    (package / "utils").mkdir(parents=True)
    (package / "__init__.py").write_text("from .utils import logging\nclass Metric: pass\n")
    (package / "utils" / "__init__.py").write_text("")
    (package / "utils" / "logging.py").write_text("def get_logger(name): ...\n")
    return package.parent


def run(*command: str, cwd: Path, path: list[Path]) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, path)),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)


def assert_imported(result: subprocess.CompletedProcess[str]) -> None:
    assert result.returncode == 0, result.stdout + result.stderr
    assert "imported" in result.stdout or "1 passed" in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["program.py"],
        ["-m", "program"],
        ["-c", "import program"],
        ["library.py"],
        ["-m", "pytest", "-q", "--import-mode=prepend", "test_program.py"],
        ["-m", "pytest", "-q", "--import-mode=append", "test_program.py"],
        ["-m", "pytest", "-q", "--import-mode=importlib", "test_program.py"],
    ],
    ids=" ".join,
)
def test_python_beside_the_script_imports_the_package(project: Path, site: Path, arguments: list[str]) -> None:
    result = run(sys.executable, *arguments, cwd=project, path=[site])
    assert_imported(result)


@pytest.mark.parametrize("program", ["program.py", "library.py"])
def test_pythonpath_with_the_project_first_imports_the_package(
    project: Path, site: Path, tmp_path: Path, program: str
) -> None:
    """As DeepSpeed's launcher sets it: the working directory leads PYTHONPATH."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(project / program, elsewhere)
    assert_imported(run(sys.executable, program, cwd=elsewhere, path=[project, site]))


def test_two_copies_of_the_script_on_the_path_import_the_package(project: Path, site: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(project, copy)
    assert_imported(run(sys.executable, "program.py", cwd=project, path=[copy, site]))


def test_missing_package_names_the_remedy(project: Path) -> None:
    result = run(sys.executable, "-S", "program.py", cwd=project, path=[])
    assert result.returncode == 1
    assert "ModuleNotFoundError: The package evaluate is not installed; pip install" in result.stderr


@pytest.mark.parametrize(
    ("launcher", "options"),
    [
        ("torch.distributed.run", ["--standalone", "--nproc_per_node", "2"]),
        (
            "accelerate.commands.launch",
            ["--cpu", "--num_processes", "1", "--num_machines", "1"],
        ),
        ("deepspeed.launcher.runner", ["--num_gpus", "1", "--no_local_rank"]),
    ],
)
def test_launched_program_imports_the_package(project: Path, site: Path, launcher: str, options: list[str]) -> None:
    pytest.importorskip(launcher.split(".")[0])
    assert_imported(run(sys.executable, "-m", launcher, *options, "program.py", cwd=project, path=[site]))


def test_real_package_is_imported_in_the_repository() -> None:
    code = (
        CHECK
        + "from evaluation.scores.metrics import SentimentMetrics\n"
        + "assert issubclass(SentimentMetrics, evaluate.Metric)\n"
    )
    result = run(sys.executable, "-c", code, cwd=REPOSITORY, path=[])
    assert_imported(result)
    assert result.stderr == ""
