"""`python -m data_utils.augment --undo`: all of it is taken away, whenever it was interrupted, and nothing else."""

import json

import pytest
from augmentation import augmenting
from augmentation.augmenting import digest, read_manifest, run

from data_utils.augment import manifest as augment_manifest
from data_utils.augment.manifest import MANIFEST
from data_utils.system.files import temporary_path

folder, predict = augmenting.folder, augmenting.predict


def test_undo_restores_the_folder_but_for_what_was_changed(folder, predict, capsys):
    before = digest(folder)
    assert run(folder, "--copies", "2", predictions=predict()) == 0
    assert len(digest(folder)) > len(before) + 40
    assert run(folder, "--output_file", "other.txt", predictions=predict()) == 2
    assert "--undo" in capsys.readouterr().err
    assert run(folder, "--undo") == 0
    assert digest(folder) == before
    assert run(folder, "--undo") == 2
    assert "nothing to undo" in capsys.readouterr().err
    assert run(folder, predictions=predict()) == 0
    (folder / "data" / "1_t1.txt").write_text("mine")
    (folder / "train_augmented.txt").open("a").write("10,neutral\n")
    (folder / "data" / "1_t9.txt").write_text("also mine")
    assert run(folder, "--undo") == 0
    assert "1_t1.txt, train_augmented.txt" in capsys.readouterr().err
    assert set(digest(folder)) - set(before) == {"data/1_t1.txt", "train_augmented.txt", "data/1_t9.txt"}


@pytest.mark.parametrize("moved", [0, 9, 28])
def test_interrupted_run_can_be_undone_and_repeated(folder, predict, capsys, moved):
    predictions, before, staging = predict(), digest(folder), folder / "data" / ".augmentation"
    staging.mkdir()
    (staging / "1_t1.txt").write_text("half")  # of a run that was killed before its plan
    assert run(folder, predictions=predictions) == 0
    finished, manifest = digest(folder), read_manifest(folder)
    names = [name for copy in manifest["copies"] for name in copy["files"]]
    staging.mkdir()
    for name in names[moved:]:
        (folder / "data" / name).rename(staging / name)
    (folder / "train_augmented.txt").rename(temporary_path(folder / "train_augmented.txt"))
    (folder / MANIFEST).write_text(json.dumps({**manifest, "complete": False}))
    others = temporary_path(folder / "notes.txt")  # of another program, or of another machine
    others.write_text("half")
    assert run(folder, predictions=predictions) == 2
    assert "was interrupted" in capsys.readouterr().err
    assert run(folder, "--undo") == 0
    others.unlink()
    assert digest(folder) == before
    assert run(folder, predictions=predictions) == 0
    assert digest(folder) == finished


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"version": 1, "complete": true, "copies": [], "output": {"name": "../x"}}']
)
def test_damaged_manifest_deletes_nothing(folder, content, capsys, tmp_path):
    (tmp_path / "x").write_text("mine")
    (folder / MANIFEST).write_text(content)
    before = digest(tmp_path)
    assert run(folder, "--undo") == 2
    assert MANIFEST in capsys.readouterr().err
    assert digest(tmp_path) == before


@pytest.mark.parametrize("step", ["write_text", "write_bytes"])
def test_disk_that_is_full_while_copies_are_added_leaves_the_folder_as_it_was(
    folder, predict, monkeypatch, capsys, step
):
    before, table = digest(folder), predict()
    real = getattr(augment_manifest, step)

    def refuse(path, content):
        """The finished manifest, or the list, which come last."""
        if '"complete": false' not in str(content):
            raise OSError(28, "No space left on device")
        real(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(augment_manifest, step, refuse)
        assert run(folder, predictions=table) == 2
    screen = capsys.readouterr().err
    assert "nothing was added. Cannot write" in screen
    assert "No space left on device" in screen
    assert digest(folder) == before
    assert run(folder, predictions=table) == 0
