"""The rooms of the project: imports run down only, folders stay small, and a package loads nothing by itself."""

from __future__ import annotations

import ast
import sys
from collections import Counter
from pathlib import Path

from transformers.dynamic_module_utils import get_imports

ROOT = Path(__file__).resolve().parents[2]
# From the top down: a room imports itself and those below it. A package alone means the files that lie right in it.
ROOMS = (
    *("train", "evaluate", "pair_classifier", "demo", "training"),
    *("training.experiments", "training.heads", "training.runs", "training.engine", "training.data"),
    *("training.checkpoint", "training.build", "training.flags", "training.launch"),
    "evaluation.report",
    *("evaluation.tasks", "evaluation.export", "evaluation.robustness", "evaluation.compare", "evaluation.reasons"),
    *("evaluation.predict", "evaluation.scores", "evaluation", "data_utils.augment", "data_utils.check", "run_files"),
    *("data_utils", "data_utils.quality", "data_utils.stream", "data_utils.shards", "data_utils.splits"),
    *("data_utils.near", "data_utils.tables", "data_utils.prepare"),
    *("data_utils.sources", "data_utils.page", "data_utils.system", "data_utils.console", "modeling"),
)
MAX_FILES = 13
MORE_FILES = {"modeling": 17}  # transformers carries the code of a model along from one flat folder
# What is there wherever transformers, torch and pillow are.
ALONE = {"torch", "transformers", "numpy", "PIL", "huggingface_hub", "safetensors", *sys.stdlib_module_names}
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for pattern in ("train.py", "evaluate.py", *(f"{room}/**/*.py" for room in ROOMS if "." not in room))
    for path in sorted(ROOT.glob(pattern))
}


def room_of(module: str) -> str:
    """The folder of a module; a package is its own room, and so is an entry."""
    return module if FILES[module].name == "__init__.py" or "." not in module else module.rpartition(".")[0]


def imports_of(module: str) -> set[str]:
    """The project's modules that a module imports, at its top or within a function, but not for annotations alone."""
    found = set()
    nodes = [ast.parse(FILES[module].read_text())]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.ImportFrom):
            package = ".".join(filter(None, [room_of(module) if node.level else "", node.module]))
            names = {f"{package}.{alias.name}" for alias in node.names}
            found |= {name if name in FILES else package for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & FILES.keys() - {"evaluate"}  # by that name the installed package is imported


def test_imports_run_down_only():
    edges = [(module, target) for module in FILES for target in imports_of(module)]

    assert len(edges) > 500, "the imports were not found"
    upward = [edge for edge in edges if ROOMS.index(room_of(edge[1])) < ROOMS.index(room_of(edge[0]))]
    assert upward == []


def test_modules_of_a_room_import_each_other_in_no_circle():
    waiting = {module: imports_of(module) - {module} for module in FILES}
    while free := {module for module, targets in waiting.items() if not targets & waiting.keys()}:
        waiting = {module: targets for module, targets in waiting.items() if module not in free}

    assert sorted(waiting) == []


def test_models_import_nothing_else_of_the_project():
    assert {target for module in FILES if room_of(module) == "modeling" for target in imports_of(module)} <= {
        module for module in FILES if room_of(module) == "modeling"
    }


def test_models_need_no_package_beyond_those_of_transformers():
    files = {module: path for module, path in FILES.items() if room_of(module) == "modeling"}
    needed = {module: set(get_imports(path)) - ALONE for module, path in files.items()}

    assert {module: names for module, names in needed.items() if names} == {}


def test_folders_stay_small():
    files = [*FILES.values(), *ROOT.glob("tests/**/*.py"), *ROOT.glob("benchmarks/**/*.py")]
    sizes = Counter(path.parent for path in files if path.name != "__init__.py" and path.parent != ROOT)

    named = {str(folder.relative_to(ROOT)): size for folder, size in sizes.items()}
    assert {name: size for name, size in named.items() if size > MORE_FILES.get(name, MAX_FILES)} == {}


def test_packages_load_nothing_by_themselves():
    packages = [module for module, path in FILES.items() if path.name == "__init__.py" and imports_of(module)]
    assert packages == ["pair_classifier"]  # which others import for the class in it
