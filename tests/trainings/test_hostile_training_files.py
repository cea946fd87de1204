"""What trainings, sweeps and augmentations go on from, damaged or made to do harm: one sentence, or passed over."""

from __future__ import annotations

import json
import os
import shutil
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from evaluations.test_hostile_run_folders import CONTENTS, VALUES, changed, places

from data_utils.augment.manifest import read_manifest, undo
from modeling.errors import InputError
from run_files.folds_folder import FoldsFolder
from run_files.run_folder import RunFolder
from run_files.sweep_folder import SweepFolder
from training.checkpoint import checkpoints
from training.checkpoint.pickles import check_pickles
from training.runs.resume import find_checkpoint

STATE = {
    "global_step": 1,
    "max_steps": 2,
    "epoch": 0.5,
    "log_history": [{"loss": 1.0, "step": 1}],
    "best_metric": 0.5,
    "best_global_step": 1,
    "stateful_callbacks": {"TrainerControl": {"args": {}}},
}


def publish(folder: Path, files: dict[str, bytes]) -> Path:
    """A whole checkpoint-1 of these files."""
    grown = folder / checkpoints.PARTIAL / "checkpoint-1"
    grown.mkdir(parents=True)
    for name, content in files.items():
        (grown / name).write_bytes(content)
    shutil.rmtree(folder / "checkpoint-1", ignore_errors=True)
    checkpoints.publish(grown, folder, world_size=1, global_batch_size=8, optimizer="any", update_flags={"seed": 1})
    return folder / "checkpoint-1"


def wrong_contents(content: Any) -> list[bytes]:
    """Damaged files, and each place of the content with each wrong value."""
    return [*CONTENTS, *(dump(changed(content, place, value)) for place in places(content) for value in VALUES)]


def fault_of(call: Callable[[], object]) -> str | None:
    """The sentence with which it is refused."""
    try:
        call()
    except InputError as error:
        return str(error)
    return None


def dump(content: Any) -> bytes:
    return json.dumps(content, default=str).encode()


def test_manifest_of_any_content_is_passed_over_or_read(tmp_path: Path) -> None:
    checkpoint = publish(tmp_path, {"weights": b"x" * 100})
    sound = checkpoints.read_manifest(checkpoint)
    content = json.loads((checkpoint / checkpoints.MANIFEST).read_bytes())
    for wrong in wrong_contents(content):
        (checkpoint / checkpoints.MANIFEST).write_bytes(wrong)
        found = checkpoints.read_manifest(checkpoint)
        assert found is None or found.files in ({}, sound.files)
        assert checkpoints.is_intact(checkpoint) in (False, found is not None)
    (checkpoint / checkpoints.MANIFEST).write_bytes(dump(content))
    assert checkpoints.is_intact(checkpoint)


@pytest.mark.parametrize("name", ["../secret", "/dev/zero", "pipe", "weights/../../secret", "a\0b", "link"])
def test_manifest_leads_neither_out_of_the_folder_nor_to_what_never_ends(tmp_path: Path, name: str) -> None:
    checkpoint = publish(tmp_path, {"weights": b"x" * 100})
    (tmp_path / "secret").write_bytes(b"")
    os.mkfifo(checkpoint / "pipe")
    (checkpoint / "link").symlink_to("/dev/zero")
    content = json.loads((checkpoint / checkpoints.MANIFEST).read_bytes())
    for part, value in (("files", 0), ("digests", "0" * 64)):
        wrong = content | {part: content[part] | {name: value}}
        (checkpoint / checkpoints.MANIFEST).write_bytes(dump(wrong))
        assert checkpoints.read_manifest(checkpoint) is None
        assert not checkpoints.is_intact(checkpoint)


def test_folders_that_only_look_like_checkpoints_are_passed_over(tmp_path: Path) -> None:
    for name in ("checkpoint-x1", "checkpoint-1-2", "checkpoint-" + "9" * 200, "checkpoint-\u0661", "checkpoint-3"):
        (tmp_path / name).mkdir()
    assert [path.name for path in checkpoints.list_checkpoints(tmp_path)] == ["checkpoint-3"]


def test_state_of_a_checkpoint_is_checked_before_it_is_gone_on_from(tmp_path: Path) -> None:
    args = SimpleNamespace(resume_from_checkpoint="latest", should_save=True, world_size=1, update_flags={"seed": 1})
    args.with_global_batch_size = lambda rows: args
    run = RunFolder(tmp_path)
    for wrong in (dump(STATE), *wrong_contents(STATE)):
        publish(run.checkpoints_dir, {"trainer_state.json": wrong})
        fault = fault_of(lambda: find_checkpoint(run, args))
        assert fault is None or "trainer_state.json has" in fault or "trainer_state.json is no JSON" in fault
        assert fault is None or wrong != dump(STATE)


def test_pickles_of_a_checkpoint_run_no_code(run_train, tmp_path, refusal):
    marker = tmp_path / "marker"

    class Evil:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
            return (Path.touch, (marker,))

    flags = ["--save_strategy", "steps", "--save_steps", "1", "--eval_strategy", "steps", "--eval_steps", "1"]
    run, _ = run_train("--max_steps", "1", *flags)
    folder = run / "checkpoints" / "checkpoint-1"
    torch.save(Evil(), tmp_path / "evil")

    def put(name: str, content: bytes) -> None:
        """Also in the manifest, so that it is the file that was saved."""
        (folder / name).write_bytes(content)
        manifest = json.loads((folder / checkpoints.MANIFEST).read_bytes())
        manifest["files"][name], manifest["digests"][name] = len(content), checkpoints.hash_content(folder / name)
        (folder / checkpoints.MANIFEST).write_text(json.dumps(manifest))

    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        sound = (folder / name).read_bytes()
        put(name, (tmp_path / "evil").read_bytes())
        refusal(run_train, "--max_steps", "2", *flags, "--resume_from_checkpoint", "latest")
        assert not marker.exists()
        put(name, sound)


@pytest.mark.parametrize("name", ["optimizer.pt", "global_step1/zero_pp_rank_0_mp_rank_00_optim_states.pt"])
def test_pickles_are_looked_at_before_deepspeed_loads_them(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    torch.save({"step": torch.ones(2), "rates": [0.1], "names": OrderedDict(a=1)}, path)
    check_pickles(tmp_path)
    torch.save({"step": Path("/")}, path)
    with pytest.raises(InputError, match="would run pathlib"):
        check_pickles(tmp_path)
    path.write_bytes(b"no archive")
    with pytest.raises(InputError, match="is damaged"):
        check_pickles(tmp_path)


def test_damaged_trials_are_dropped(tmp_path: Path) -> None:
    record = {
        "number": 0,
        "values": {"seed": "1"},
        "flags": ["--seed"],
        "seconds": 1.0,
        "best_epoch": 1,
        "metrics": {"accuracy": 0.5},
        "last_metrics": {"accuracy": 0.5},
        "parameters": {"total": 1},
        "error": "not finite",
    }
    folder = SweepFolder(tmp_path)
    path = tmp_path / "trials" / "0000.json"
    path.parent.mkdir()
    for wrong in wrong_contents(record):
        path.write_bytes(wrong)
        assert folder.drop_damaged() in ([], [0])
        folder.read_records()
    path.write_bytes(dump(record))
    assert folder.drop_damaged() == []
    assert [each.metrics for each in folder.read_records()] == [{"accuracy": 0.5}]


def test_manifest_of_copies_of_any_content_deletes_nothing_else(tmp_path: Path) -> None:
    data_dir = tmp_path / "pairs"
    (data_dir / "data").mkdir(parents=True)
    (data_dir / "data" / "1.txt").write_text("precious")
    content = {
        "version": 1,
        "complete": True,
        "output": {"name": "list.txt", "sha256": "0" * 64},
        "copies": [{"files": {"1.txt": "0" * 64}}],
    }
    for wrong in (dump(content), *wrong_contents(content)):
        (data_dir / "augmentation.json").write_bytes(wrong)
        fault = fault_of(lambda: read_manifest(data_dir)) or fault_of(lambda: undo(data_dir))
        assert fault is None or "augmentation.json" in fault
        assert (data_dir / "data" / "1.txt").read_text() == "precious"


def test_section_of_folds_of_any_content_is_refused_or_read(tmp_path: Path) -> None:
    section = {"num_folds": 2, "seeds": [1, 2], "sha256": "0"}
    sections = {"model": {}, "data": {}, "training": {}, "environment": {}}
    for place in [(), *places(section)]:
        for value in VALUES:
            wrong = changed({"folds": section}, ("folds", *place), value)
            (tmp_path / "config.yaml").write_bytes(dump(sections | wrong))
            folder = FoldsFolder.find(tmp_path)
            if folder is not None:
                with pytest.raises(InputError, match="unfinished trainings"):
                    folder.check_complete()
