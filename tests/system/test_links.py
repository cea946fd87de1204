"""Links planted where the program writes: they are replaced or refused, and what they point to stays as it is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from evaluating import save_run

from data_utils import sample
from data_utils.sources.quarantine import Entry
from data_utils.system.files import remove
from training.engine.stream_trainer import StreamQuarantine

VICTIM = b"a victim's only copy"
# Of an ordinary run, also of one that is gone on with.
RUN_FILES = (
    *("split.json", "quarantine.csv", "metrics.json", "predictions_val.csv", "bad_cases.csv", "interrupted.json"),
    *("profile/trace-rank0.json", "profile/table-rank0.txt", ".model.partial/model.safetensors"),
    *("model/config.json", "model/model.safetensors", "model/tokenizer.json"),
)


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file that no link may lead to harm."""
    path = tmp_path / "victim.txt"
    path.write_bytes(VICTIM)
    return path


def plant(folder: Path, names: tuple[str, ...], victim: Path) -> None:
    """Links to the victim in the place of files."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        remove(path)
        path.symlink_to(victim)


def links_in(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_symlink()]


def test_training_writes_through_no_link_to_a_file(
    run_train: Callable[..., tuple[Path, str]], tmp_path: Path, victim: Path
) -> None:
    flags = ["--save_strategy", "steps", "--save_steps", "1", "--eval_strategy", "steps", "--eval_steps", "1"]
    early = ("split.json", "quarantine.csv", ".model.partial/model.safetensors")
    plant(tmp_path / "run", early, victim)  # as of a job that was killed before it wrote config.yaml
    run, _ = run_train("--max_steps", "2", *flags)
    assert links_in(run) == []
    plant(run, RUN_FILES, victim)
    run_train("--max_steps", "8", *flags, "--resume_from_checkpoint", "latest", "--profile", "true")
    assert links_in(run) == []
    assert victim.read_bytes() == VICTIM
    written = {name for name in RUN_FILES if (run / name).is_file()}
    assert written == {*RUN_FILES} - {"interrupted.json", ".model.partial/model.safetensors"}


@pytest.fixture
def refusal(run_train: Callable[..., tuple[Path, str]], capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """Train, which is refused; returns what is said."""

    def run() -> str:
        with pytest.raises(SystemExit) as stop:
            run_train()
        assert stop.value.code == 2
        message = capsys.readouterr().err
        assert message.count("error:") == 1
        return message

    return run


@pytest.mark.parametrize(
    "name", ["checkpoints", "model", "logs", ".model.partial", "members", "splits", "checkpoints/.partial", "model/x"]
)
def test_folder_of_a_run_that_is_a_link_is_refused(refusal: Callable[[], str], tmp_path: Path, name: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept.txt").write_bytes(VICTIM)
    link = tmp_path / "run" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(elsewhere)
    assert f"{link} is a link" in refusal()
    assert [path.name for path in elsewhere.iterdir()] == ["kept.txt"]


@pytest.mark.parametrize("kind", ["link", "dangling", "folder"])
def test_lock_that_is_no_file_is_told_in_one_sentence(
    refusal: Callable[[], str], tmp_path: Path, victim: Path, kind: str
) -> None:
    lock = tmp_path / "run" / ".lock"
    lock.parent.mkdir()
    if kind == "folder":
        lock.mkdir()
    else:
        lock.symlink_to(victim if kind == "link" else tmp_path / "nowhere")
    assert str(lock) in refusal()
    assert victim.read_bytes() == VICTIM
    assert not (tmp_path / "nowhere").exists()


def test_output_dir_may_be_a_link_and_an_earlier_run_is_moved_beside_links_that_lead_nowhere(
    run_train: Callable[..., tuple[Path, str]], tmp_path: Path
) -> None:
    disk = tmp_path / "large-disk"
    disk.mkdir()
    (tmp_path / "run").symlink_to(disk)
    run_train("--max_steps", "1")
    assert (disk / "metrics.json").is_file()
    (tmp_path / "large-disk.old-1").symlink_to(tmp_path / "nowhere")
    run_train("--max_steps", "1")
    assert (tmp_path / "large-disk.old-2" / "config.yaml").is_file()
    assert os.path.islink(tmp_path / "large-disk.old-1")


def test_evaluation_writes_through_no_link(
    tiny_pairs: Path, tmp_path: Path, victim: Path, evaluate_main: Callable[..., None]
) -> None:
    run = save_run(tmp_path / "run", tiny_pairs)
    files = ["evaluation_val.json", "ablation.json", "contributions_val.json", "contributions_val.csv"]
    plant(run.path, tuple(files), victim)
    for flags in ([], ["--ablation"], ["--contributions"]):
        evaluate_main(run.path, *flags)
    assert links_in(run.path) == []
    assert victim.read_bytes() == VICTIM


def test_stream_prediction_writes_through_no_link(
    tiny_run: object,
    write_shards: Callable[..., Path],
    numbered_rows: Callable[..., list],
    tmp_path: Path,
    victim: Path,
    evaluate_main: Callable[..., None],
) -> None:
    shards = write_shards(numbered_rows(20), "--for_prediction", "true")
    names = (".tags.txt.00000", ".tags.probabilities.csv.00000", ".tags.quarantine.csv.00000")
    plant(tmp_path / "out", names, victim)
    evaluate_main(tiny_run.path, "--predict", shards, "--streaming", "--output", tmp_path / "out" / "tags.txt")
    assert links_in(tmp_path / "out") == []
    assert victim.read_bytes() == VICTIM
    assert len((tmp_path / "out" / "tags.txt").read_text().splitlines()) == 21


def test_list_of_a_stream_s_faults_is_not_written_through_a_link(tmp_path: Path, victim: Path) -> None:
    (tmp_path / "quarantine.csv").symlink_to(victim)
    log = StreamQuarantine(tmp_path / "quarantine.csv", 0)
    log.add([Entry(1, "a", "missing_text", "masked", "no a.txt")])
    assert victim.read_bytes() == VICTIM
    assert (tmp_path / "quarantine.csv").read_text().splitlines()[1] == "1,a,missing_text,masked,no a.txt"


def test_sample_is_written_through_no_link(tmp_path: Path, victim: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--output_dir", str(tmp_path / "sample"), "--num_pairs", "40", "--num_test", "2"]
    assert sample.main(words) == 0
    names = [str(path.relative_to(tmp_path / "sample")) for path in (tmp_path / "sample" / "data").iterdir()]
    plant(tmp_path / "sample", ("train.txt", "test_without_label.txt", *names), victim)
    assert sample.main(words) == 0
    assert links_in(tmp_path / "sample") == []
    assert victim.read_bytes() == VICTIM
    (tmp_path / "sample" / "data").rename(tmp_path / "moved")
    (tmp_path / "sample" / "data").symlink_to(tmp_path / "moved")
    capsys.readouterr()
    assert sample.main(words) == 2
    assert "is a link" in capsys.readouterr().err
