"""How the class is had: the checkout installed with `pip install -e`, and what a wheel brings."""

import os
import shutil
import subprocess
import sys
import zipfile

import pytest
from conftest import ROOT

NAMES = ("pyproject.toml", "README.md", "LICENSE", "train.py", "evaluate.py")
PACKAGES = ("pair_classifier", "modeling", "run_files", "data_utils", "evaluation", "training")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A copy of the checkout, with dist/ and editable/: the contents of the wheels that pip builds of it."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in NAMES:
        shutil.copy(ROOT / name, copy)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    code = (
        "from setuptools import build_meta\n"
        "for build, folder in ((build_meta.build_wheel, 'dist'), (build_meta.build_editable, 'editable')):\n"
        "    print('wheel', folder, build(folder + '-wheel'))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=copy, capture_output=True, text=True, check=True)
    for line in done.stdout.splitlines():
        if line.startswith("wheel "):
            _, folder, name = line.split()
            zipfile.ZipFile(copy / f"{folder}-wheel" / name).extractall(copy / folder)
    return copy


def run_installed(built, folder):
    """What a program in `folder` finds, where the checkout is installed as pip does with -e."""
    code = (
        f"import site; site.addsitedir({str(built / 'editable')!r})\n"
        "from importlib.util import find_spec\n"
        "import pair_classifier, training\n"
        "print(pair_classifier.PairClassifier.__name__, training.__file__, find_spec('evaluate').origin)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_wheel_brings_no_packages(built):
    assert [path.name for path in (built / "dist").iterdir() if not path.name.endswith(".dist-info")] == []


def test_editable_install_is_found_from_any_folder(built, tmp_path):
    done = run_installed(built, tmp_path)
    name, training, evaluate = done.stdout.split() or [done.stderr, "", ""]
    assert (name, training) == ("PairClassifier", str(built / "training" / "__init__.py"))
    assert evaluate.endswith("/evaluate/__init__.py")  # the library, not evaluate.py


def test_other_package_of_the_same_name_is_told(built, tmp_path):
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "__init__.py").touch()
    done = run_installed(built, tmp_path)
    assert f"Python finds {tmp_path / 'training'}" in done.stderr.splitlines()[-1]
