"""Accounts without a home, without a name, or whose home may not be written to, as in containers."""

from __future__ import annotations

import getpass
import os
import shutil
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from data_utils.sources.arguments import DataArguments
from data_utils.system.home import count_cores, ensure_home, temporary_home
from evaluation.predict.loaded_run import load_run
from modeling.errors import InputError

NOBODY = 12345
VARIABLES = ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "XDG_CACHE_HOME", "HF_HOME", "TRITON_CACHE_DIR")


@pytest.fixture
def as_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], str]], str]:
    """Run a function in a copy of this process that has no account; returns its text."""
    if os.geteuid() != 0:
        pytest.skip("only root may take another user's number")
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == 0 and folder != folder.parent and not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "temporary").mkdir()
    (tmp_path / "temporary").chmod(0o777)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    tempfile.mkdtemp(dir=tmp_path)  # imports what nobody may not be able to read

    def run(function: Callable[[], str]) -> str:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
                os.write(writer, function().encode())
            except BaseException:
                os.write(writer, traceback.format_exc().encode())
            finally:
                os._exit(0)
        os.close(writer)
        os.waitpid(pid, 0)
        with open(reader) as file:
            return file.read()

    return run


def settle() -> str:
    """What the libraries and the data cache find."""
    ensure_home()
    return f"{getpass.getuser()} {Path.home()} {DataArguments(data_dir='.').cache_path()}"


def test_nobody_gets_a_temporary_home_of_their_own(as_nobody, tmp_path):
    home = tmp_path / "temporary" / f"multimodal-sentiment-{NOBODY}"
    expected = f"user-{NOBODY} {home} {home / '.cache' / 'multimodal-sentiment'}"
    assert [as_nobody(settle), as_nobody(settle)] == [expected] * 2
    assert (home.stat().st_uid, home.stat().st_mode & 0o777) == (NOBODY, 0o700)


def test_name_of_the_temporary_home_that_another_user_took_is_not_trusted(as_nobody, tmp_path):
    taken = tmp_path / "temporary" / f"multimodal-sentiment-{NOBODY}"
    taken.mkdir(mode=0o777)
    found = as_nobody(temporary_home)
    assert found.startswith(f"{taken}-")
    assert Path(found).stat().st_uid == NOBODY


def test_home_that_may_not_be_written_to_keeps_its_models_and_gets_no_caches(as_nobody, tmp_path, monkeypatch):
    home = tmp_path / "home"
    (home / ".cache" / "huggingface").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    found = as_nobody(lambda: f"{settle()} {os.environ['HF_HOME']}")
    temporary = tmp_path / "temporary" / f"multimodal-sentiment-{NOBODY}"
    assert found == f"user-{NOBODY} {home} {temporary / 'multimodal-sentiment'} {home / '.cache' / 'huggingface'}"


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_colleague_without_the_right_is_told_so(as_nobody, tiny_run, tmp_path, name):
    model = shutil.copytree(tiny_run.path, tmp_path / "run") / "model"
    load_run(tmp_path / "run").load_model()
    for path in model.iterdir():
        path.chmod(0o600 if path.name == name else 0o644)
    (tmp_path / "run").chmod(0o755)

    def load() -> str:
        ensure_home()
        try:
            load_run(tmp_path / "run").load_model()
        except InputError as error:
            return str(error)
        return "loaded"

    assert as_nobody(load).startswith(f"{model / name} may not be read by this account; ask its owner")


def test_cores_are_counted_where_the_system_has_no_affinity(monkeypatch):
    assert count_cores() == len(os.sched_getaffinity(0))
    monkeypatch.delattr("os.sched_getaffinity")
    assert count_cores() == os.cpu_count()
