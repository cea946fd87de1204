"""Every reader answers damaged files with a value or with one sentence: never a traceback, a crash or a hang.

`make test` tries some hundred inputs, `make test-fuzz` 20,000 (or FUZZ_INPUTS); the same ones each time.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import draw_photo
from evaluating import LABELS, PICTURE, save_run, write_pairs
from fuzzing import Reader, fuzz, read_all
from PIL import Image

from data_utils import shard
from data_utils.augment import __main__ as augment
from data_utils.augment.manifest import read_manifest as read_augmentation
from data_utils.prepare.pair_files import PairList
from data_utils.prepare.pairs import load_pairs
from data_utils.shards.read import check_columns, iterate_shard, read_texts
from data_utils.shards.shard_set import find_shards
from data_utils.sources.arguments import DataArguments
from data_utils.sources.quarantine import Quarantine
from data_utils.sources.records import read_records
from data_utils.splits.draw import make_split
from data_utils.splits.split_file import load_split, save_split
from evaluation.compare.runs import read_run as read_compared
from evaluation.predict.loaded_run import load_run
from modeling.pictures import PictureError, decode_picture
from run_files.explanations import Reasons, Word, read_explanations, write_explanations
from run_files.predictions_csv import read_predictions_csv, write_predictions_csv
from training.checkpoint import checkpoints
from training.experiments.comparison import read_comparison
from training.flags.parsing import parse_arguments
from training.heads.sweep_recipe import read_sweep

NUM_INPUTS = int(os.environ.get("FUZZ_INPUTS", "20000"))
FEW = 400
ROWS = [(f"p{number}", LABELS[number % 3]) for number in range(8)]


def write_list(folder: Path, name: str = "list.txt") -> None:
    (folder / name).write_text("guid,tag\n" + "".join(f"{guid},{label}\n" for guid, label in ROWS))


def read_list(folder: Path) -> None:
    for for_prediction in (True, False):
        read_records(folder / "list.txt", labels=LABELS, quarantine=Quarantine(), for_prediction=for_prediction)


def write_folder(folder: Path) -> None:
    (folder / "data").mkdir()
    write_list(folder, "train.txt")
    for number, (guid, _) in enumerate(ROWS):
        encoded = f"caf\u00e9 {guid} \u2026".encode(("utf-8", "gb18030")[number % 2])
        (folder / "data" / f"{guid}.txt").write_bytes(encoded)
        draw_photo(guid, (20, 16)).save(folder / "data" / f"{guid}.jpg")


def read_folder(folder: Path) -> None:
    data = DataArguments(
        data_dir=str(folder), cache_dir=str(folder / "cache"), preprocessing_num_workers=1, labels=[*LABELS]
    )
    pairs = load_pairs(PairList(data.list_path(), folder), data=data, picture=PICTURE)
    for row in pairs.dataset:
        assert row["image"] is None or len(row["image"]) == 3 * PICTURE.image_size**2


def write_cached_folder(folder: Path) -> None:
    write_folder(folder)
    # The key holds the files' times, which copies keep, and the folder, which here is that of the copies.
    sound = folder.with_name("damaged")
    folder.rename(sound)
    read_folder(sound)
    sound.rename(folder)


def write_pictures(folder: Path) -> None:
    photo = draw_photo(1, (24, 20))
    for ending in ("jpg", "png", "gif", "webp", "bmp", "tiff"):
        photo.save(folder / f"picture.{ending}")
    photo.convert("RGBA").save(folder / "alpha.png")
    photo.convert("P").save(folder / "palette.png", transparency=0)
    photo.convert("CMYK").save(folder / "print.jpg", progressive=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.save(folder / "turned.jpg", exif=exif)


def read_pictures(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        with suppress(PictureError):
            assert decode_picture(path.read_bytes(), PICTURE).shape == (3, 16, 16)


def write_split(folder: Path) -> None:
    guids, labels = zip(*ROWS, strict=True)
    split = make_split(list(guids), [LABELS.index(label) for label in labels], range(len(ROWS)), val_ratio=0.4, seed=1)
    save_split(split, folder / "split.json")


def write_reasons(folder: Path) -> None:
    reasons = Reasons("1", "positive", 0.7, "a good day", (Word(2, 6, 0.2), Word(7, 10, -0.1)), ((0.1, -0.2),) * 2, 6)
    write_explanations(folder / "reasons.json", [reasons], "val", gradients=[reasons], faithfulness={}, cost={})


RECIPES = {
    "recipe.yaml": "model: clip\nfusion: attn\nlearning_rate: 1e-4\nlabels: [a, b]\nfrom_scratch: true\nseed: 3\n",
    "sweep.yaml": "model: clip\nsweep:\n  fusion: [early, late]\n  seed: [1, 2]\n  learning_rate: [1e-3]\n  folds: 3\n",
    "compare.yaml": "folds: 3\nruns:\n  one: {fusion: early}\n  two: {model: vilbert, learning_rate: 1e-5}\n",
}


def read_recipes(folder: Path) -> None:
    common = ["--data_dir", str(folder), "--output_dir", str(folder / "run")]
    read_comparison(["--compare", str(folder / "compare.yaml"), *common])
    read_sweep(["--sweep", str(folder / "sweep.yaml"), *common])
    parse_arguments(["--config", str(folder / "recipe.yaml"), *common])


def read_run(folder: Path) -> None:
    run = load_run(folder / "run", data_dir=str(folder), cache_dir=str(folder / "cache"))
    assert len(run.load_split_rows("val"))
    run.load_model()


def write_predictions(folder: Path) -> None:
    draw = np.random.default_rng(0)
    guids, labels = [guid for guid, _ in ROWS], np.array([LABELS.index(label) for _, label in ROWS])
    for name in ("predictions_val.csv", "predictions_oof.csv", "predictions_oof_seed1.csv"):
        write_predictions_csv(folder / name, guids, labels, draw.dirichlet([1, 1, 1], len(ROWS)), LABELS)
    (folder / "predictions_oof_seed1.csv").write_bytes((folder / "predictions_oof.csv").read_bytes())
    metrics = {"best": {"metric": "accuracy"}, "parameters": {"total": 5, "trainable": 3}, "training": {"seconds": 1.5}}
    (folder / "metrics.json").write_text(json.dumps(metrics))


def read_many_predictions(folder: Path) -> None:
    read_predictions_csv(folder / "predictions_val.csv")
    read_compared(str(folder), "run")
    read_predictions_csv(folder / "predictions_oof.csv")


def write_shards(kind: str, folder: Path) -> None:
    write_folder(folder)
    words = f"--data_dir {folder} --output_dir {folder}/shards --cache_dir {folder}/cache --shard_format {kind}".split()
    assert shard.main([*words, *["--preprocessing_num_workers", "1", "--rows_per_shard", "4", "--val_ratio", "0"]]) == 0


def read_shards(folder: Path) -> None:
    for location in (folder / "shards", folder / "shards" / "train-*"):  # with the manifest, and without
        if (shards := find_shards(str(location), "train")) is not None:
            check_columns(shards, labelled=True)
            read_texts(shards, limit=5)
            for each in shards.shards:
                for _, read in iterate_shard(each, shards.kind, stop=each.rows):
                    read()


def write_checkpoint(folder: Path) -> None:
    grown = folder / "checkpoints" / checkpoints.PARTIAL / "checkpoint-4"
    grown.mkdir(parents=True)
    (grown / "state.bin").write_bytes(bytes(range(200)))
    manifest = {"world_size": 1, "global_batch_size": 8, "optimizer": "adamw", "update_flags": {"learning_rate": 1e-3}}
    checkpoints.publish(grown, folder / "checkpoints", **manifest)


def read_checkpoint(folder: Path) -> None:
    for checkpoint in checkpoints.list_checkpoints(folder / "checkpoints"):
        checkpoints.is_intact(checkpoint)


def write_augmentation(folder: Path) -> None:
    write_folder(folder)
    write_predictions(folder)
    words = ["--data_dir", str(folder), "--predictions", str(folder / "predictions_oof.csv")]
    assert augment.main(words) == 0


READERS = [
    Reader("list", write_list, read_list, ["list.txt"], 20),
    Reader("folder", write_folder, read_folder, ["train.txt", "data/*"], 8),
    Reader("cache", write_cached_folder, read_folder, ["cache/**/*"], 4),
    Reader("pictures", write_pictures, read_pictures, ["*"], 12),
    Reader("split", write_split, lambda folder: load_split(folder / "split.json"), ["split.json"], 12),
    Reader(
        "recipes",
        lambda folder: [(folder / name).write_text(text) for name, text in RECIPES.items()],
        read_recipes,
        ["*.yaml"],
        1,
    ),
    Reader("run", lambda folder: save_run(folder / "run", write_pairs(folder)), read_run, ["run/*", "run/model/*"], 2),
    Reader("explanations", write_reasons, lambda folder: read_explanations(folder / "reasons.json"), ["*"], 8),
    Reader("predictions", write_predictions, read_many_predictions, ["*"], 15),
    Reader("parquet", partial(write_shards, "parquet"), read_shards, ["shards/*"], 10),
    Reader("tar", partial(write_shards, "webdataset"), read_shards, ["shards/*"], 10),
    Reader("checkpoint", write_checkpoint, read_checkpoint, ["checkpoints/*/*"], 6),
    Reader("augmentation", write_augmentation, read_augmentation, ["augmentation.json"], 6),
]


def count_inputs(reader: Reader, total: int) -> int:
    return -(-total * reader.share // sum(each.share for each in READERS))


@pytest.mark.parametrize("total", [FEW, pytest.param(NUM_INPUTS, marks=pytest.mark.fuzz)])
@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_damaged_files_are_answered_in_one_sentence(reader, total, tmp_path):
    # The large run goes on where the small one ends.
    first = 0 if total == FEW else count_inputs(reader, FEW)
    findings = fuzz(Path(__file__), reader, tmp_path, range(first, first + count_inputs(reader, total)))
    assert findings == [], f"{len(findings)} findings"


if __name__ == "__main__":  # as `fuzz` starts it
    name, folder, first, stop = sys.argv[1:]
    chosen = next(reader for reader in READERS if reader.name == name)
    read_all(chosen, Path(folder), range(int(first), int(stop)))
