"""The command `python -m data_utils.augment`: copies of misjudged rows beside the data, tied to their parents."""

import csv
import hashlib
import re

import pytest
from augmentation import augmenting
from augmentation.augmenting import RIGHT, TEXTS, digest, read_manifest, run
from conftest import LABELS
from PIL import Image

from data_utils.augment.manifest import MANIFEST
from data_utils.prepare.pair_files import PairList
from data_utils.prepare.pairs import load_pairs
from data_utils.sources.encodings import decode_text
from data_utils.sources.quarantine import Quarantine
from data_utils.sources.records import read_records
from data_utils.splits.groups import group_ids
from modeling.text import text_key

folder, predict = augmenting.folder, augmenting.predict


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
    assert "1 texts of which nothing" in shown
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
    pairs = load_pairs(PairList(data.list_path(), folder), data=data, picture=small_picture)
    group_of = dict(zip(pairs.dataset["guid"][:], group_ids(pairs.dataset), strict=True))
    copies = read_manifest(folder)["copies"]
    assert len(copies) > 20
    assert all(group_of[copy["guid"]] == group_of[copy["parent"]] for copy in copies)
    assert len({group_of[guid] for guid in TEXTS}) == len(TEXTS) - 1  # 7_t1 is one of 7


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
    hashes = [sha256 for files in whole.values() for name, sha256 in files.items() if re.search(r"_t\d\.txt", name)]
    assert len(set(hashes)) == len(hashes) > 11, "no two copies of a row say the same"


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
        (["--predictions", "none"], "does not exist"),
        ("guid,label,prediction\n1,negative,neutral\n", "its first line is 'guid,label,prediction'"),
        (HEAD + '"' + "x" * 200_000, "cannot be used: "),
        (HEAD + "9,negative,negative,0.8,0.1,0.1\n", "No row"),
        (HEAD + "4,negative,neutral,0.1,0.8,0.1\n", "None of the 1 chosen rows can be copied: 1 texts of nothing"),
    ],
)
def test_flags_and_tables_that_cannot_be_used_are_refused(folder, predict, tmp_path, capsys, words, named):
    before, table = digest(folder), predict()
    if isinstance(words, str):
        table.write_text(words)
        words = ["--kinds", "text"]
    assert run(folder, *words, predictions=table) == 2
    assert named in capsys.readouterr().err
    assert digest(folder) == before


def test_missing_predictions_are_asked_for(folder, capsys):
    assert run(folder) == 2
    assert "--folds 5" in capsys.readouterr().err


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
