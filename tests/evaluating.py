"""A run to evaluate: a few pairs and a tiny random model, in the files that train.py writes."""

from __future__ import annotations

import csv
import random
from dataclasses import asdict
from pathlib import Path

import torch
from PIL import Image

from data_utils.prepare.pair_files import PairList
from data_utils.prepare.pairs import load_pairs
from data_utils.prepare.tokens import train_wordpiece
from data_utils.sources.arguments import DataArguments
from data_utils.splits.draw import make_split
from data_utils.splits.split_file import save_split
from modeling.classifier import SentimentClassifier
from modeling.configuration import SentimentConfig
from modeling.pictures import PictureSettings
from run_files.run_folder import RunFolder

NUM_PAIRS = 60
NUM_VAL = 51
LABELS = ["negative", "neutral", "positive"]
PICTURE = PictureSettings(image_size=16, shortest_edge=16, resize_mode="squash", resample=2)
WORDS = ["sun", "rain", "happy", "sad", "train", "late", "friend", "cake", "storm", "the", "is", "was", "so"]


def read_rows(path: Path) -> list[list[str]]:
    """The cells of a file of results, with its header."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def write_pair(folder: Path, guid: str, rng: random.Random) -> None:
    (folder / f"{guid}.txt").write_text(f"{guid} " + " ".join(rng.choices(WORDS, k=rng.randint(1, 9))))
    Image.new("RGB", (20, 18), tuple(rng.randrange(256) for _ in range(3))).save(folder / f"{guid}.jpg")


def write_pairs(folder: Path) -> Path:
    """A data folder: train.txt, and NUM_PAIRS pairs with labels in turn; returns the folder."""
    (folder / "data").mkdir()
    rng = random.Random(0)
    for number in range(NUM_PAIRS):
        write_pair(folder / "data", f"p{number}", rng)
    rows = [f"p{number},{LABELS[number % 3]}\n" for number in range(NUM_PAIRS)]
    (folder / "train.txt").write_text("".join(["guid,tag\n", *rows]))
    return folder


def build_tiny_model(fusion: str, *, vocab_size: int) -> SentimentClassifier:
    """A random BERT and ViT of width 16; logits differ clearly between rows."""
    common = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    text = {"class_name": "BertModel", "config": {**common, "vocab_size": vocab_size}, "projection_dim": None}
    vision = {"class_name": "ViTModel", "config": {**common, "image_size": 16, "patch_size": 8}, "projection_dim": None}
    config = SentimentConfig(
        fusion=fusion,
        text_tower=None if fusion == "image_only" else text,
        vision_tower=None if fusion == "text_only" else vision,
        max_length=12,
        picture=PICTURE.to_dict(),
        id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
    )
    torch.manual_seed(0)
    model = SentimentClassifier(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def save_run(path: Path, data_dir: Path, *, fusion: str = "early") -> RunFolder:
    """A run folder as train.py leaves it, without the training."""
    run = RunFolder(path)
    data = DataArguments(
        data_dir=str(data_dir), cache_dir=str(path / "cache"), preprocessing_num_workers=1, labels=[*LABELS]
    )
    pairs = load_pairs(PairList(data.list_path(), data_dir), data=data, picture=PICTURE)
    tokenizer = train_wordpiece(pairs.dataset["text"], vocab_size=200, max_length=12)
    model = build_tiny_model(fusion, vocab_size=len(tokenizer))
    model.save_pretrained(run.model_dir)
    tokenizer.save_pretrained(run.model_dir)
    guids = pairs.dataset["guid"][:]
    groups = [0] * NUM_VAL + list(range(1, NUM_PAIRS - NUM_VAL + 1))
    split = make_split(guids, pairs.dataset["label"][:], groups, val_ratio=0.0, seed=0)
    split = type(split)(train=tuple(guids[NUM_VAL:]), val=tuple(guids[:NUM_VAL]), seed=0, val_ratio=0.85)
    save_split(split, run.split_file)
    environment = {"data_fingerprint": pairs.fingerprint}
    run.save_arguments(
        {"model": {}, "data": asdict(data), "training": {"modality_dropout": 0.1}, "environment": environment}
    )
    return run
