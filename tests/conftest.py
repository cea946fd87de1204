"""Fixtures of all tests: small generated data, no network."""

import csv
import gc
import json
import os
import random
import zlib
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the libraries below are imported
os.environ["OMP_NUM_THREADS"] = "1"  # tiny tensors: a second thread only waits, and on a busy machine for long

import numpy as np
import pytest
from PIL import Image

from data_utils import shard
from data_utils.prepare.pair_files import PairList
from data_utils.prepare.pairs import load_pairs
from data_utils.sources.arguments import DataArguments
from modeling.pictures import PictureSettings

ROOT = Path(__file__).resolve().parent.parent
LABELS = ("negative", "neutral", "positive")
TELLING_WORDS = {"negative": "a bad sad day", "neutral": "a plain grey day", "positive": "a good glad day"}
TINY = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
SMALL = ["--image_size", "32", "--max_length", "16", "--preprocessing_num_workers", "1"]
ONE_EPOCH = ["--num_train_epochs", "1", "--learning_rate", "1e-3", "--report_to", "none", "--no_report", "True"]

# The files that take longest. Begun first, none of them is left to one process at the end.
LONGEST = ("strategies", "multi_node", "resume", "launch", "tasks", "benchmarks", "fuzz", "streaming_train")
LONGEST += ("accelerate_configs", "adapted_launches", "deferred_checks", "stream_faults", "fsdp", "trainer_flags")


def pytest_sessionstart(session):
    """Remove the locks of an earlier session that was killed while DeepSpeed compiled: all its tests would wait."""
    if getattr(session.config, "workerinput", {}).get("workerid", "gw0") == "gw0":
        from training.launch.left_locks import find_left_locks  # after the settings above

        for lock in find_left_locks():
            lock.unlink()


def pytest_collection_modifyitems(items):
    """The longest files first; `make test` gives files to its processes in this order."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem.removeprefix("test_"), len(LONGEST)))


def pytest_collection_finish():
    """Each training collects garbage, and would search through the libraries' objects for half a second."""
    gc.collect()
    gc.freeze()


def draw_photo(seed=0, size=(48, 36)):
    """A picture of soft patches with some noise, other for every seed; size is (width, height)."""
    rng = np.random.default_rng(zlib.crc32(str(seed).encode()))
    coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), dtype=np.int64)
    return Image.fromarray((smooth + rng.integers(-12, 13, smooth.shape)).clip(0, 255).astype(np.uint8))


def read_csv(path):
    """The rows of a file of results, as dicts."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="session", autouse=True)
def temporary_files(tmp_path_factory):
    """What started programs leave behind, as torchrun does, goes where pytest removes it at the end."""
    os.environ["TMPDIR"] = str(tmp_path_factory.mktemp("programs"))


@pytest.fixture
def photo():
    """Factory of pictures: `photo(seed, (width, height))`."""
    return draw_photo


@pytest.fixture
def make_pairs(tmp_path):
    """Factory of a data folder: `make_pairs(rows)` writes train.txt and data/{guid}.txt|.jpg, returns the folder.

    A row is (guid, label) or (guid, label, text) or (guid, label, text, picture). Text: str, bytes, or None for no
    file; by default words of its own. Picture: a PIL image, bytes, or None for no file; by default one of its own.
    A guid that stands twice gets the files of its first row; one that is no plain file name gets none.
    """

    def make(rows, *, list_name="train.txt", header=True, folder="pairs"):
        root = tmp_path / folder
        (root / "data").mkdir(parents=True, exist_ok=True)
        plain = {row[0]: row[2:] for row in reversed(rows) if "/" not in row[0] and row[0] not in ("", ".", "..")}
        for guid, content in plain.items():
            text = content[0] if content else f"some words of pair {guid}"
            picture = content[1] if len(content) > 1 else draw_photo(guid)
            if text is not None:
                (root / "data" / f"{guid}.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
            if isinstance(picture, bytes):
                (root / "data" / f"{guid}.jpg").write_bytes(picture)
            elif picture is not None:
                picture.save(root / "data" / f"{guid}.jpg", quality=90)
        lines = ["guid,tag"] * header + [f"{row[0]},{row[1]}" for row in rows]
        (root / list_name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        return root

    return make


@pytest.fixture
def numbered_rows():
    """Factory of `count` rows (guid, label) with labels drawn by a seed."""

    def make(count, seed=0):
        rng = random.Random(seed)
        return [(str(100 + number), rng.choice(LABELS)) for number in range(count)]

    return make


@pytest.fixture
def make_arguments(tmp_path):
    """Factory of DataArguments for a folder, with a cache of the test's own and one process."""
    own = {"cache_dir": str(tmp_path / "cache"), "preprocessing_num_workers": 1, "labels": [*LABELS]}
    return lambda folder, **options: DataArguments(data_dir=str(folder), **own | options)


@pytest.fixture
def small_picture():
    """32 pixels, shortest side then centre crop, bicubic."""
    return PictureSettings(image_size=32, shortest_edge=36, resize_mode="shortest", resample=3)


@pytest.fixture
def load(make_arguments, small_picture):
    """Factory of the pairs of a folder made by `make_pairs`; other options are of DataArguments."""

    def run(folder, *, list_name="train.txt", for_prediction=False, needs=("text", "image"), **options):
        data, asked = make_arguments(folder, **options), {"for_prediction": for_prediction, "needs": needs}
        return load_pairs(PairList(folder / list_name, folder), data=data, picture=small_picture, **asked)

    return run


@pytest.fixture
def make_table(tmp_path):
    """Factory of tables with one column of pictures."""
    from tables.table_files import write_pictures

    return partial(write_pictures, tmp_path)


@pytest.fixture
def load_pixels(small_picture):
    """Factory of the pixels of such a table's rows."""
    from tables.table_files import load_pictures

    return partial(load_pictures, small_picture)


@pytest.fixture
def shared():
    """The folder ../shared with real data and encoders; skips where it is absent."""
    folder = ROOT.parent / "shared"
    if not (folder / "models").is_dir():
        pytest.skip("../shared is absent")
    return folder


@pytest.fixture
def sample(make_pairs):
    """60 pairs whose text tells the label."""
    labels = [LABELS[number % 3] for number in range(60)]
    return make_pairs([(str(row), label, f"{TELLING_WORDS[label]} number {row}") for row, label in enumerate(labels)])


def tiny_flags(data_dir, root, name="run", text_config=TINY):
    """Flags of a training of a tiny model for one epoch; its files go into the folder `root`."""
    argv = ["--data_dir", str(data_dir), "--cache_dir", str(root / "cache")]
    argv += [] if name is None else ["--output_dir", str(root / name)]
    argv += ["--from_scratch", "--text_config", json.dumps(text_config)]
    return [*argv, "--vision_config", json.dumps(TINY | {"patch_size": 16}), *SMALL, *ONE_EPOCH]


@pytest.fixture
def refusal(capfd):
    """Run a main that refuses what it is asked for; returns its one sentence."""

    def run(main, *words, code=2, **options):
        capfd.readouterr()
        with pytest.raises(SystemExit) as ending:
            main(*words, **options)
        assert ending.value.code == code
        screen = capfd.readouterr().err
        assert "Traceback" not in screen
        (sentence,) = [line for line in screen.splitlines() if line.startswith("error: ")]
        return sentence

    return run


@pytest.fixture
def run_train(sample, tmp_path, caplog):
    """Run train.py's main on the sample and a tiny model; returns the run folder and the screen's text."""
    import train  # its libraries take seconds to load, which tests of the data alone don't wait for

    def run(*flags, name="run", data_dir=sample, text_config=TINY):
        caplog.clear()
        train.main([*tiny_flags(data_dir, tmp_path, name, text_config), *flags])
        return name and tmp_path / name, caplog.text

    return run


@pytest.fixture(scope="module")
def tiny_pairs(tmp_path_factory):
    """The data folder of `tiny_run`."""
    from evaluating import write_pairs

    return write_pairs(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="module")
def tiny_run(tiny_pairs, tmp_path_factory):
    """A run of a tiny model, to evaluate."""
    from evaluating import save_run

    return save_run(tmp_path_factory.mktemp("run"), tiny_pairs)


@pytest.fixture
def fresh_state(monkeypatch):
    """What evaluate.py sets in its process, undone afterwards."""
    from accelerate.state import AcceleratorState

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def evaluate_main(fresh_state):
    """main of evaluate.py, loaded under another name than the package's."""
    spec = spec_from_file_location("evaluate_entry", ROOT / "evaluate.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda *arguments: module.main([str(argument) for argument in arguments])


@pytest.fixture
def write_shards(make_pairs, tmp_path):
    """Write shards of rows (as for `make_pairs`) with the command's own main; returns the folder."""

    def run(rows, *flags, name="shards", list_name="train.txt", code=0):
        folder = make_pairs(rows, list_name=list_name)
        words = ["--data_dir", str(folder), "--output_dir", str(tmp_path / name), "--train_file", list_name]
        words += ["--cache_dir", str(tmp_path / "cache"), "--preprocessing_num_workers", "1"]
        assert shard.main([*words, "--rows_per_shard", "7", *flags]) == code
        return tmp_path / name

    return run
