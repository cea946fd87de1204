"""Texts that are not UTF-8 in shards: decided by many together, kept by the run, written as UTF-8 by our own."""

import csv
import io
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from encoded_sentences import SENTENCES

from data_utils.shards.read import find_text_encoding, iterate_shard, read_texts
from data_utils.shards.shard_set import find_shards
from evaluation.predict.loaded_run import load_run

TEXTS = [f"{SENTENCES['russian'][number % 6]} {number}" for number in range(12)]
LABELS = ("negative", "neutral", "positive")


@pytest.fixture
def pictures(photo):
    def draw(number):
        buffer = io.BytesIO()
        photo(number).save(buffer, "JPEG")
        return buffer.getvalue()

    return [draw(number) for number in range(len(TEXTS))]


@pytest.fixture
def write(tmp_path, pictures):
    """Factory of foreign shards with these texts' bytes."""

    def make(kind, sources):
        folder = tmp_path / kind
        folder.mkdir()
        if kind == "parquet":
            labels = [LABELS[number % 3] for number in range(len(sources))]
            table = pa.table({"image": pictures[: len(sources)], "text": sources, "label": labels})
            pq.write_table(table, folder / "train-0.parquet")
        else:
            with tarfile.open(folder / "train-0.tar", "w") as archive:
                for number, source in enumerate(sources):
                    label = LABELS[number % 3].encode()
                    for name, content in (("jpg", pictures[number]), ("txt", source), ("cls", label)):
                        member = tarfile.TarInfo(f"{number:03d}.{name}")
                        member.size = len(content)
                        archive.addfile(member, io.BytesIO(content))
        return folder

    return make


@pytest.mark.parametrize("kind", ["parquet", "webdataset"])
@pytest.mark.parametrize("codec", ["koi8_r", "cp1251", "utf-16-le", "utf-8"])
def test_encoding_of_foreign_shards_is_found_by_their_texts(kind, codec, write):
    shards = find_shards(str(write(kind, [text.encode(codec) for text in TEXTS])), "train")
    chosen = find_text_encoding(shards, limit=100)
    assert chosen == (None if codec.startswith("utf") else codec)
    shards = shards.with_text_encoding(chosen)
    assert read_texts(shards, limit=5) == TEXTS[:5]
    assert [read().text for _, read in iterate_shard(shards.shards[0], shards.kind)] == TEXTS


def test_run_on_a_stream_keeps_the_encoding(write, run_train, tmp_path):
    folder = write("webdataset", [text.encode("koi8_r") for text in TEXTS])
    flags = ["--streaming", "--max_steps", "2", "--per_device_train_batch_size", "4"]
    run, screen = run_train(*flags, data_dir=folder)
    assert "Texts that are not UTF-8 are read as koi8_r; --text_encoding names another" in screen
    assert load_run(run).data.text_encoding == "koi8_r"
    other, screen = run_train(*flags, "--text_encoding", "cp1251", data_dir=folder, name="other")
    assert "are read as" not in screen
    assert load_run(other).data.text_encoding == "cp1251"


def test_shards_of_ours_hold_the_decoded_texts(write_shards, tmp_path):
    rows = [(str(number), LABELS[number % 3], text.encode("koi8_r")) for number, text in enumerate(TEXTS)]
    folder = write_shards(rows, "--for_prediction")
    assert read_texts(find_shards(str(folder), "test"), limit=99) == TEXTS
    with (folder / "encodings.csv").open(newline="", encoding="utf-8") as file:
        assert [(row["guid"], row["encoding"]) for row in csv.DictReader(file)] == [(row[0], "koi8_r") for row in rows]
    other = write_shards(rows, "--for_prediction", "--text_encoding", "cp1251", name="other")
    wrong = [text.encode("koi8_r").decode("cp1251") for text in TEXTS]
    assert read_texts(find_shards(str(other), "test"), limit=99) == wrong


def test_unknown_encoding_is_refused_by_every_command(write_shards, capsys):
    rows = [(str(number), LABELS[number % 3]) for number in range(6)]
    write_shards(rows, "--text_encoding", "windows-12520", code=2)
    assert "no text encoding that Python knows" in capsys.readouterr().err
