"""The command `python -m data_utils.augment`: copies beside the data, tied to their parents, and all of it undone."""

import csv
import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from data_utils.augment import manifest as augment_manifest
from data_utils.augment.__main__ import main
from data_utils.augment.manifest import MANIFEST
from data_utils.prepare.pairs import load_pairs
from data_utils.sources.encodings import decode_text
from data_utils.sources.quarantine import Quarantine
from data_utils.sources.records import read_records
from data_utils.sources.text import text_key
from data_utils.splits.splits import group_ids
from data_utils.system.files import temporary_path
from run_files.predictions_csv import write_predictions_csv

LABELS = ("negative", "neutral", "positive")
TEXTS = {
    "1": "RT @ann: Photos of the amazing cake! #yum http://t.co/amazing",
    "2": "i love this amazing movie, thanks so much @movie 😀",
    "3": "#photo #only #tags",
    "4": "@nobody http://t.co/x",
    "5": "今天和朋友一起去看电影, 非常开心!#北京#",
    "6": "the abandoned house is gloomy… and it looks like nobody is there".encode("gb18030"),
    "7": "we bought a huge gift for the kids today",
    "7_t1": "a guid that looks like an amazing copy of the other row",
    "8": "feeling exhausted, the movie was awful",
    "9": "this one is judged rightly and has a photo",
}
RIGHT = "9"


@pytest.fixture
def folder(make_pairs, photo):
    """Ten pairs; 8 has no picture, and 2_i1.png is a stray file."""
    rows = [(guid, LABELS[number % 3], text) for number, (guid, text) in enumerate(TEXTS.items())]
    rows = [(*row, None) if row[0] == "8" else row for row in rows]
    root = make_pairs(rows)
    photo("stray").save(root / "data" / "2_i1.png")
    return root


@pytest.fixture
def predict(folder, tmp_path):
    """Factory of a table that misjudges all rows of the list but one, or those of `guids` with class ids `labels`."""

    def write(name="predictions.csv", guids=None, labels=None):
        found = dict(line.split(",") for line in (folder / "train.txt").read_text().splitlines()[1:])
        guids = guids or list(found)
        ids = labels or [LABELS.index(found[guid]) for guid in guids]
        answers = [label if guid == RIGHT else (label + 1) % 3 for guid, label in zip(guids, ids, strict=True)]
        path = tmp_path / name
        write_predictions_csv(path, guids, ids, 0.7 * np.eye(3)[answers] + 0.1, LABELS)
        return path

    return write


def run(folder, *words, predictions=None):
    given = [] if predictions is None else ["--predictions", str(predictions)]
    return main(["--data_dir", str(folder), *given, *words])


def digest(folder):
    files = sorted(path for path in folder.rglob("*"))
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in files
    }


def read_manifest(folder):
    return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))


def read_text(folder, guid):
    return decode_text((folder / "data" / f"{guid}.txt").read_bytes())[0]


def test_copies_are_listed_with_one_side_changed_and_the_other_their_parents(folder, predict, capsys):
    assert run(folder, predictions=predict()) == 0
    before, after = (folder / "train.txt").read_bytes(), (folder / "train_augmented.txt").read_bytes()
    assert after.startswith(before)
    added = [line.split(",") for line in after[len(before) :].decode().splitlines()]
    label_of = dict(line.split(",") for line in before.decode().splitlines()[1:])
    # 3 has only tags, 4 no words, 8 no picture, 9 was judged rightly; 7_t1 and 2_i1.png were there before.
    guids = "1_t1 1_i1 2_t1 2_i2 3_i1 4_i1 5_t1 5_i1 6_t1 6_i1 7_t2 7_i1 7_t1_t1 7_t1_i1 8_t1"
    assert " ".join(guid for guid, _ in added) == guids
    assert all(label == label_of[guid.rsplit("_", 1)[0]] for guid, label in added)
    shown = capsys.readouterr().out
    assert "9 of 10 judged rows are misjudged" in shown
    assert "7 copies with another text and 8 with another picture" in shown
    assert shown.count("1 rows without a picture") == shown.count("1 texts of nothing but addresses") == 1
    for copy in read_manifest(folder)["copies"]:
        guid, parent = copy["guid"], copy["parent"]
        assert copy["changes"]
        assert {path.name for path in (folder / "data").glob(f"{guid}.*")} - {"2_i1.png"} == set(copy["files"])
        pictures = [(folder / "data" / f"{name}.jpg") for name in (guid, parent)]
        texts = [(folder / "data" / f"{name}.txt").read_bytes() for name in (guid, parent)]
        if copy["kind"] == "text":
            assert texts[0].decode("utf-8") != decode_text(texts[1])[0]
            assert [path.exists() for path in pictures] in ([True, True], [False, False])
            assert not pictures[0].exists() or pictures[0].read_bytes() == pictures[1].read_bytes()
        else:
            assert texts[0] == texts[1]
            sizes = [Image.open(path).size for path in pictures]
            assert all(0.9 * old <= new <= old for new, old in zip(*sizes, strict=True))
            assert pictures[0].read_bytes() != pictures[1].read_bytes()


def test_files_with_endings_in_capitals_are_copied_and_never_taken_for_free(folder, predict):
    for suffix in (".txt", ".jpg"):
        (folder / "data" / f"2{suffix}").rename(folder / "data" / f"2{suffix.upper()}")
    (folder / "data" / "2_t1.TXT").write_text("a stray file")
    assert run(folder, "--kinds", "text", "image", predictions=predict()) == 0
    files = {copy["guid"]: set(copy["files"]) for copy in read_manifest(folder)["copies"] if copy["parent"] == "2"}
    assert files == {"2_t2": {"2_t2.txt", "2_t2.JPG"}, "2_i2": {"2_i2.jpg", "2_i2.TXT"}}


def test_copies_are_in_their_parents_group(folder, predict, make_arguments, small_picture):
    assert run(folder, "--copies", "2", predictions=predict()) == 0
    data = make_arguments(folder, train_file="train_augmented.txt")
    pairs = load_pairs(data.list_path(), pair_dir=folder, data=data, picture=small_picture)
    group_of = dict(zip(pairs.dataset["guid"][:], group_ids(pairs.dataset), strict=True))
    copies = read_manifest(folder)["copies"]
    assert len(copies) > 20
    assert all(group_of[copy["guid"]] == group_of[copy["parent"]] for copy in copies)
    assert len({group_of[guid] for guid in TEXTS}) == len(TEXTS) - 1  # 7_t1 is one of 7


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


def test_copies_depend_on_seed_guid_kind_and_number_alone(folder, predict, tmp_path):
    def copies_of(*words, predictions):
        assert run(folder, *words, predictions=predictions) == 0
        found = {copy["guid"]: copy["files"] for copy in read_manifest(folder)["copies"]}
        assert run(folder, "--undo") == 0
        return found

    everything = predict()
    whole = copies_of("--copies", "2", predictions=everything)
    assert copies_of("--copies", "2", predictions=everything) == whole
    part = copies_of("--kinds", "text", predictions=predict("part.csv", guids=["7", "1"], labels=[0, 0]))
    assert set(part) == {"1_t1", "7_t2"}
    assert all(whole[guid] == files for guid, files in part.items())
    other = copies_of("--copies", "2", "--seed", "1", predictions=everything)
    assert all(files != whole.get(guid) for guid, files in other.items() if "_i" in guid)


def test_copies_of_one_row_differ(folder, predict):
    assert run(folder, "--copies", "4", "--kinds", "text", predictions=predict()) == 0
    for guid in ("1", "2", "7"):
        copies = [copy["guid"] for copy in read_manifest(folder)["copies"] if copy["parent"] == guid]
        texts = {read_text(folder, name) for name in [guid, *copies]}
        assert len(texts) == len(copies) + 1 > 3


@pytest.mark.parametrize(
    ("words", "parents"),
    [
        (["--min_loss", "0"], set(TEXTS)),
        (["--min_loss", "1"], set(TEXTS) - {RIGHT}),
        (["--only", "neutral"], {"2", "5", "7_t1"}),
        (["--min_loss", "0", "--only", "negative"], {"1", "4", "7", "9"}),
    ],
)
def test_chosen_rows(folder, predict, words, parents):
    assert run(folder, *words, predictions=predict()) == 0
    assert {copy["parent"] for copy in read_manifest(folder)["copies"]} == parents


@pytest.mark.parametrize("codec", ["gb18030", "utf-8-sig", "utf-16", "utf-16-be", "utf-32-le"])
def test_list_keeps_its_encoding_and_its_line_ends(folder, predict, codec):
    predictions = predict()
    text = (folder / "train.txt").read_text().rstrip("\n").replace("\n", "\r\n") + "\r\n\r\nünï…,great"
    (folder / "train.txt").write_bytes(text.encode(codec))
    assert run(folder, predictions=predictions) == 0
    extended = (folder / "train_augmented.txt").read_bytes()
    assert extended.startswith(text.encode(codec))
    assert extended.decode(codec).startswith(f"{text}\r\n1_t1,negative\r\n")
    copies = [copy["guid"] for copy in read_manifest(folder)["copies"]]
    records = read_records(folder / "train_augmented.txt", labels=LABELS, quarantine=Quarantine())
    assert [record.guid for record in records][-len(copies) :] == copies
    assert extended.decode(codec).count("\n") == extended.decode(codec).count("\r\n") == text.count("\n") + 16


def test_texts_of_copies_are_decoded_by_all_texts_together(folder, predict):
    """A short word alone could be of many encodings."""
    predictions = predict()
    texts = {
        "1": "i love this amazing movie, это очень хорошо и красиво",
        "4": "the movie was awful, мама сказала нет",
        "7": "we bought a huge gift for the kids, да",
    }
    for guid, text in texts.items():
        (folder / "data" / f"{guid}.txt").write_bytes(text.encode("koi8-r"))
    assert run(folder, "--min_loss", "0", "--kinds", "text", predictions=predictions) == 0
    copies = {copy["parent"]: copy["guid"] for copy in read_manifest(folder)["copies"]}
    for guid, text in texts.items():
        found = (folder / "data" / f"{copies[guid]}.txt").read_text(encoding="utf-8")
        assert set(found.split()) & set(text.partition(", ")[2].split())


@pytest.mark.parametrize("moved", [0, 9, 28])
def test_interrupted_run_can_be_undone_and_repeated(folder, predict, capsys, moved):
    predictions, before = predict(), digest(folder)
    assert run(folder, predictions=predictions) == 0
    finished = digest(folder)
    manifest = read_manifest(folder)
    names = [name for copy in manifest["copies"] for name in copy["files"]]
    staging = folder / "data" / ".augmentation"
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


def test_run_that_was_killed_before_its_plan_leaves_nothing(folder, predict):
    before = digest(folder)
    (folder / "data" / ".augmentation").mkdir()
    (folder / "data" / ".augmentation" / "1_t1.txt").write_text("half")
    assert run(folder, predictions=predict()) == 0
    assert run(folder, "--undo") == 0
    assert digest(folder) == before


def test_folds_run_is_read_and_another_run_is_refused(folder, predict, tmp_path, capsys, caplog):
    plain, folds = tmp_path / "plain", tmp_path / "folds"
    table = predict("plain/predictions_val.csv")
    assert run(folder, predictions=plain) == 2
    assert "predict rows the model had not seen with `train.py --folds 5`" in capsys.readouterr().err
    assert not (folder / MANIFEST).exists()
    predict("folds/predictions_oof.csv")
    assert run(folder, predictions=folds) == 0
    source = (folds / "predictions_oof.csv").read_bytes()
    assert read_manifest(folder)["predictions"]["sha256"] == hashlib.sha256(source).hexdigest()
    assert run(folder, "--undo") == 0
    assert run(folder, predictions=table) == 0
    assert "holds the validation rows of one run" in caplog.text


def test_predictions_of_other_rows_are_refused_in_one_sentence(folder, predict, capsys):
    with (folder / "train.txt").open("a") as file:
        file.write("20,null\n21,neutral\n")
    before = digest(folder)
    assert run(folder, predictions=predict(guids=["1", "2", "20", "99", "21"], labels=[0, 2, 1, 1, -100])) == 2
    shown = capsys.readouterr().err
    assert "1 are not in the list, like '99'" in shown
    assert "2 are not labelled, like '20'" in shown
    assert "1 are labelled otherwise, like '2' ('positive', in the list 'neutral')" in shown
    assert digest(folder) == before


HEAD = "guid,label,prediction,prob_negative,prob_neutral,prob_positive\n"


@pytest.mark.parametrize(
    ("source", "named"),
    [
        (None, "does not exist"),
        ("", "its first line is ''"),
        ("guid,label,prediction\n1,negative,neutral\n", "its first line is 'guid,label,prediction'"),
        (HEAD + "1,negative,neutral,0.1,0.8,0.1\n" * 2, "the guid '1' stands in it 2 times"),
        (HEAD + "1,negative,great,0.1,0.8,0.1\n", "line 2 has the prediction 'great'"),
        (HEAD + "1,negative,neutral,nan,0.8,0.1\n", "line 2 has no probabilities that add up to 1"),
        (HEAD + "1,negative,neutral\n", "line 2 has 3 cells"),
        (HEAD + '"' + "x" * 200_000, "cannot be used: "),
        (HEAD + "9,negative,negative,0.8,0.1,0.1\n", "No row"),
        (HEAD + "4,negative,neutral,0.1,0.8,0.1\n", "None of the 1 chosen rows can be copied: 1 texts of nothing"),
    ],
)
def test_table_that_cannot_be_used_is_refused(folder, tmp_path, capsys, source, named):
    path = tmp_path / "table.csv"
    if source is not None:
        path.write_text(source)
    before = digest(folder)
    assert run(folder, "--kinds", "text", predictions=path) == 2
    assert named in capsys.readouterr().err
    assert digest(folder) == before


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--copies", "0"], "--copies 0"),
        (["--kinds", "txt"], "Did you mean text"),
        (["--min_loss", "-1"], "--min_loss -1"),
        (["--only", "great"], "--only great"),
        (["--output_file", "../list.txt"], "plain file name"),
        (["--output_file", "train.txt"], "exists"),
        (["--output_file", MANIFEST], "not augmentation.json"),
        (["--train_file", "none.txt"], "does not exist"),
        (["--data_dir", "none"], "none"),
        (["--data_dir", "none", "--undo"], "none"),
    ],
)
def test_flags_that_cannot_be_used_are_refused(folder, predict, capsys, words, named):
    before = digest(folder)
    assert run(folder, *words, predictions=predict()) == 2
    assert named in capsys.readouterr().err
    assert digest(folder) == before


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


def test_guid_with_a_comma_stays_one_cell(make_pairs, tmp_path):
    folder = make_pairs([("7", "positive"), ("8", "negative")])
    (folder / "data" / "a,b.txt").write_text("we bought a huge gift for the kids today")
    with (folder / "train.txt").open("a") as file:
        file.write('"a,b",neutral\n')
    path = tmp_path / "table.csv"
    path.write_text(HEAD + '"a,b",neutral,positive,0.1,0.1,0.8\n')
    assert run(folder, predictions=path) == 0
    rows = list(csv.reader((folder / "train_augmented.txt").open()))
    assert rows[-2:] == [["a,b", "neutral"], ["a,b_t1", "neutral"]]


def test_copy_never_says_what_another_row_says(folder, predict):
    """It would tie the groups of both rows together, and the folds would be others than without copies."""
    run(folder, "--kinds", "text", predictions=predict())
    said = (folder / "data" / "2_t1.txt").read_text()
    run(folder, "--undo")
    (folder / "data" / "20.txt").write_text(said)
    (folder / "train.txt").write_text((folder / "train.txt").read_text() + "20,neutral\n")
    run(folder, "--kinds", "text", predictions=predict("again.csv"))
    keys = {path.name: text_key(decode_text(path.read_bytes())[0]) for path in (folder / "data").glob("*_t*.txt")}
    assert text_key(said) not in keys.values()


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
