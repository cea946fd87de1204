"""The commands in README.md, CONTRIBUTING.md and docs/ are ones that the programs take."""

from __future__ import annotations

import pkgutil
import re
import shlex
from importlib.util import find_spec

import pytest
from conftest import ROOT

from evaluation.arguments import parse_arguments, parse_comparison
from training.flags.parsing import check_command_line

PAGES = [ROOT / "README.md", *[path for path in (ROOT / "CONTRIBUTING.md",) if path.exists()]]
PAGES += sorted((ROOT / "docs").glob("*.md"))
ENTRIES = {"train.py": "train.py", "evaluate.py": "evaluate.py", "launchers/train.sbatch": "train.py"}
PLACEHOLDERS = {"...", "$ENCODERS"}
MAKE_TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


def read_commands(page):
    """The commands of a page's bash blocks: continued lines joined, comments and loops left out."""
    for block in re.findall(r"```bash\n(.*?)```", page.read_text(), flags=re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(re.sub(r"^for .*?; do |; done$", "", line), comments=True)
            if words and "=" not in words[0]:
                yield " ".join(words), words


COMMANDS = {f"{page.name}: {text}": words for page in PAGES for text, words in read_commands(page)}


def check_make(words):
    assert set(words) <= MAKE_TARGETS | {word for word in words if "=" in word}


def check_module(name, words):
    assert name in ("pytest", "venv") or find_spec(name) is not None
    for word in words:
        assert not word.startswith("tests/") or list(ROOT.glob(word.partition("::")[0])), f"{word} is gone"


def check_entry(entry, words):
    """What stands behind train.py or evaluate.py is parsed as the program does it, before it needs any data."""
    words = [word for word in words if word not in PLACEHOLDERS]
    if entry == "train.py":
        check_command_line(words)
    elif words[0] == "compare":
        parse_comparison(words[1:])
    else:
        parse_arguments(words)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """The working folder of someone with the project and with data where the pages have them."""
    for name in ("accelerate_configs", "configs", "launchers"):
        (tmp_path / name).symlink_to(ROOT / name)
    for name in ("data/project5/train.txt", "data/train.txt", "data/train-00000.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("checkout")
@pytest.mark.parametrize("name", COMMANDS)
def test_command_is_one_that_the_programs_take(name):
    words = COMMANDS[name]
    for word in words:
        path = word.rpartition("=")[2]
        if path.startswith(("accelerate_configs/", "configs/", "launchers/")) and "$" not in path:
            assert (ROOT / path).is_file(), f"{path} is no file"
    entries = [
        place for place, word in enumerate(words) if word in ("train.py", "evaluate.py", "launchers/train.sbatch")
    ]
    if words[0] == "make":
        check_make(words[1:])
    elif entries:
        check_entry(ENTRIES[words[entries[0]]], words[entries[0] + 1 :])
    elif words[:2] == ["python", "-m"]:
        check_module(words[2], words[3:])
    else:
        assert words[:2] in (["bash", "launchers/gpu/gather_wheels.sh"], ["bash", "launchers/gpu/run.sh"])


def test_pages_name_files_that_are_there():
    """Files of the project that a page names between backquotes."""
    folders = ("training/", "evaluation/", "data_utils/", "modeling/", "run_files/", "tests/", "configs/", "launchers/")
    named = {
        (page.name, path)
        for page in PAGES
        for path in re.findall(r"`([\w./-]+\.(?:py|yaml|sh|txt|sbatch))`", page.read_text())
        if path.startswith(folders)
    }
    assert [name for name in sorted(named) if not (ROOT / name[1]).exists()] == []


def test_pages_name_functions_that_are_there():
    rooms = "|".join(("training", "evaluation", "run_files", "data_utils", "modeling"))
    text = "".join(page.read_text() for page in PAGES)
    names = set(re.findall(rf"`((?:{rooms})(?:\.\w+)+)`", text))

    assert len(names) > 20
    assert [name for name in sorted(names) if not can_be_found(name)] == []


def can_be_found(name):
    """Whether a dotted name is a module, or what is defined in one."""
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True
