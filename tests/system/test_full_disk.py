"""A disk that is full, shown by a limit on the size of a file: one sentence, nothing lost, and it works afterwards."""

from __future__ import annotations

import resource
import shutil
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from torch import distributed

from data_utils import sample, shard
from data_utils.system.refusals import MachineError, describe_refusal
from run_files.run_folder import RunFolder
from training.checkpoint.checkpoints import list_checkpoints
from training.checkpoint.sharding import _converted

CHECKPOINTS = ["--save_strategy", "steps", "--save_steps", "2", "--eval_strategy", "steps", "--eval_steps", "2"]


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """No file can grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def refuses(capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command in little room; returns its one sentence."""

    def run(size: int, command: Callable[[], object], *, code: int = 1) -> str:
        with files_of_at_most(size), pytest.raises(SystemExit) as ending:
            command()
        screen = capfd.readouterr().err
        assert ending.value.code == code, screen
        assert "Traceback" not in screen
        (sentence,) = [line for line in screen.splitlines() if line.startswith("error: ")]
        return sentence

    return run


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_checkpoint_without_room_leaves_the_earlier_ones(run_train, refuses):
    run, _ = run_train(*CHECKPOINTS, "--max_steps", "2")
    plain = (run / "config.yaml").stat().st_mode
    # Whom the umask lets can read all that libraries write.
    assert {path.stat().st_mode for path in run.rglob("*") if path.is_file()} == {plain}
    (kept,) = list_checkpoints(run / "checkpoints")
    flags = [*CHECKPOINTS, "--max_steps", "4", "--resume_from_checkpoint", "latest"]
    sentence = refuses(100_000, lambda: run_train(*flags))
    assert str(run / "checkpoints" / "checkpoint-4") in sentence
    assert "bytes are needed" in sentence
    assert "make room there" in sentence or "lift the limit" in sentence
    assert "--resume_from_checkpoint latest" in sentence
    assert names(run / "checkpoints") == [kept.name]
    _, screen = run_train(*flags)
    assert f"Resuming from {kept}" in screen
    assert (run / "metrics.json").is_file()


def test_cache_and_model_without_room_leave_no_half_of_them(run_train, refuses, tmp_path):
    flags = ["--save_strategy", "no", "--eval_strategy", "no", "--max_steps", "1"]
    sentence = refuses(5_000, lambda: run_train(*flags), code=2)
    assert str(tmp_path / "cache") in sentence
    assert "--cache_dir" in sentence
    assert not list((tmp_path / "cache").rglob("*.arrow"))
    run_train(*flags, name="first")  # which prepares the data
    sentence = refuses(100_000, lambda: run_train(*flags))
    assert str(tmp_path / "run" / "model") in sentence
    assert not {"model", ".model.partial"} & set(names(tmp_path / "run"))
    run_train(*flags)
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


@pytest.mark.parametrize("earlier", [False, True])
def test_answers_and_probabilities_are_written_both_or_not_at_all(
    earlier: bool, tiny_run: RunFolder, tiny_pairs: Path, evaluate_main, refuses, tmp_path
):
    output = tmp_path / "answers" / "test.csv"
    words = [tiny_run.path, "--predict", tiny_pairs / "train.txt", "--output", output]
    evaluate_main(*words)
    size = output.stat().st_size
    if not earlier:
        shutil.rmtree(output.parent)
    before = {path.name: path.read_bytes() for path in output.parent.iterdir()} if earlier else {}
    sentence = refuses(size + 50, lambda: evaluate_main(*words), code=2)
    assert "test.probabilities.csv" in sentence
    after = {path.name: path.read_bytes() for path in output.parent.iterdir()}
    assert after == before
    evaluate_main(*words)
    written = output.read_text() + output.with_name("test.probabilities.csv").read_text()
    assert written.count("p0,") == 2


def test_streamed_answers_without_room_for_their_probabilities_leave_nothing(
    tiny_run: RunFolder, write_shards, numbered_rows, evaluate_main, refuses, tmp_path
):
    shards = write_shards([(guid, "null") for guid, _ in numbered_rows(30)], "--for_prediction")
    output = tmp_path / "answers" / "test.csv"
    words = [tiny_run.path, "--predict", shards, "--streaming", "--output", output]
    evaluate_main(*words)
    size, expected = output.stat().st_size, output.read_bytes()
    shutil.rmtree(output.parent)
    sentence = refuses(size + 50, lambda: evaluate_main(*words))
    assert f"Cannot write {output} (File too large" in sentence
    assert names(output.parent) == []
    evaluate_main(*words)
    assert output.read_bytes() == expected


def test_shards_and_samples_without_room_are_written_afterwards(make_pairs, numbered_rows, tmp_path, capfd):
    folder = make_pairs(numbered_rows(12))
    words = ["--data_dir", str(folder), "--output_dir", str(tmp_path / "shards"), "--rows_per_shard", "6"]
    words += ["--cache_dir", str(tmp_path / "cache"), "--preprocessing_num_workers", "1"]
    drawn = ["--output_dir", str(tmp_path / "sample"), "--num_pairs", "20", "--num_test", "1"]
    for main, flags, size, named in (
        (shard.main, words, 4_000, f"Cannot write {tmp_path / 'shards' / 'train-00000-of-00002.parquet'}"),
        (sample.main, drawn, 500, f"{tmp_path / 'sample'}"),
    ):
        with files_of_at_most(size):
            assert main(flags) == 2
        assert named in capfd.readouterr().err
        assert main(flags) == 0


@pytest.fixture
def alone() -> Iterator[None]:
    """A process group of this process."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyError("param_shapes")])
def test_only_a_full_disk_ends_the_conversion_of_a_checkpoint(error, alone, tmp_path, monkeypatch, caplog):
    """What DeepSpeed can't convert starts anew, with a notice."""

    def fail(arguments: Namespace) -> None:
        Path(arguments.output_folder).mkdir(parents=True)
        raise error

    monkeypatch.setattr("deepspeed.checkpoint.ds_to_universal.main", fail)
    checkpoint = tmp_path / "checkpoint-2"
    (checkpoint / "global_step2").mkdir(parents=True)
    if isinstance(error, OSError):
        with pytest.raises(MachineError, match=r"\.universal \(No space"), _converted(checkpoint):
            pass
    else:
        with _converted(checkpoint) as folder:
            assert not folder.exists()
        assert f"{checkpoint} can't be converted: KeyError: 'param_shapes'" in caplog.text
    assert names(tmp_path) == ["checkpoint-2"]


def test_fault_of_the_program_beside_a_refusal_is_not_hidden_by_it():
    refusal, fault = PermissionError(13, "Permission denied", "file"), KeyError("name")
    fault.__context__ = refusal
    assert describe_refusal(fault) is None
    assert "file (Permission denied)" in describe_refusal(refusal)
    library = RuntimeError("it can't be written")
    library.__context__ = refusal
    assert describe_refusal(library) == describe_refusal(refusal)
