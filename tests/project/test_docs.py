"""The commands in README.md, CONTRIBUTING.md and docs/ are ones that the programs take."""

from __future__ import annotations

import os
import pkgutil
import re
import shlex
import subprocess
from importlib.util import find_spec

import pytest
from conftest import ROOT
from families import save_family, small_config
from launching import warm
from tiny import save_clip

from data_utils.sample import main as draw_sample
from evaluation.arguments import parse_arguments, parse_comparison
from training.flags.parsing import check_command_line

PAGES = [ROOT / "README.md", *[path for path in (ROOT / "CONTRIBUTING.md",) if path.exists()]]
PAGES += sorted((ROOT / "docs").glob("*.md"))
ENTRIES = {"train.py": "train.py", "evaluate.py": "evaluate.py", "launchers/train.sbatch": "train.py"}
PLACEHOLDERS = {"...", "$ENCODERS"}
MAKE_TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


def read_commands(page):
    """The commands of a page's bash blocks, and comments on each or above all: long lines joined, loops left out."""
    for block in re.findall(r"```bash\n(.*?)```", page.read_text(), flags=re.DOTALL):
        heading = block.partition("\n")[0] if block.startswith("#") else ""
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(re.sub(r"^for .*?; do |; done$", "", line), comments=True)
            if words and "=" not in words[0]:
                yield words, heading + line.partition("#")[2]


FOUND = [(page.name, *found) for page in PAGES for found in read_commands(page)]
COMMANDS = {f"{name}: {' '.join(words)}": words for name, words, _ in FOUND}
# Those that not every machine can run say why behind a #; what make and pytest do is run by CI.
MARKS = re.compile(r"\b(GPUs?|cluster|network|hours|files of your own|published files)\b")
RUN_HERE = {
    " ".join(words): (name == "scale.md", words)  # streamed, into the same run folder: after the others
    for name, words, comment in FOUND
    if not MARKS.search(comment) and words[0] != "make" and words[2:3] != ["pytest"]
}


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
    elif words[0] == "python":
        assert (ROOT / words[1]).is_file()
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
    rooms = "|".join(("pair_classifier", "training", "evaluation", "run_files", "data_utils", "modeling"))
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


@pytest.mark.slow
def test_commands_run_as_they_stand_unless_they_are_marked(tmp_path):
    """On a sample, with tiny models in folders of the hub's names; the trainings first."""
    for name in ("train.py", "evaluate.py", "accelerate_configs", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    draw_sample(["--output_dir", str(tmp_path / "data" / "project5"), "--num_pairs", "60", "--num_test", "10"])
    save_clip(tmp_path / "openai" / "clip-vit-base-patch32")
    for family, name, settings in (
        ("bert", "sentence-transformers/all-MiniLM-L6-v2", {"max_position_embeddings": 64}),
        ("dinov2", "facebook/dinov2-small", {"num_hidden_layers": 12}),
    ):
        config = small_config(family)
        config.update(settings)
        save_family(config, tmp_path / name)
    compared = [
        shlex.split("python train.py --model clip --fusion early --data_dir data/project5"),
        shlex.split(
            "python train.py --config configs/best.yaml --data_dir data/project5 --output_dir runs/vilbert-early"
        ),
    ]
    commands = [
        words for _, words in sorted(RUN_HERE.values(), key=lambda found: (found[0], "evaluate.py" in found[1]))
    ]
    assert len(commands) > 15
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    for words in [*compared, *commands]:
        options = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True}
        done = subprocess.run(warm(words), **options, check=False)
        too_weak = "--abstain" in words and "No threshold of confidence" in done.stderr  # tiny models reach no 85 %
        assert done.returncode == 0 or too_weak, f"{' '.join(words)}: {done.stderr[-2000:]}"
