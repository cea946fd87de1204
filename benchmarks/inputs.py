"""What is measured on where nothing is given: drawn pairs at the size of real tweets' pictures, and a random CLIP."""

from __future__ import annotations

import multiprocessing
import random
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

from data_utils.prepare.tokens import train_wordpiece
from data_utils.sample import draw_picture, merge_moods, plan_moods, write_tweet
from data_utils.system.home import count_cores

LONGEST_SIDE = 400
ROWS_PER_WORKER = 50
TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def draw_pairs(folder: Path, num_pairs: int, seed: int = 0) -> None:
    """Write train.txt and data/{guid}.txt|.jpg: two of the sample's tweets each, its pictures enlarged and made grainy.

    So texts are about as long as real tweets. Grain makes the files as large as photographs are (about 30 kB), hence
    as slow to decode.
    """
    (folder / "data").mkdir(parents=True, exist_ok=True)
    moods = plan_moods(num_pairs, random.Random(seed))
    with multiprocessing.Pool(count_cores()) as pool:
        pool.starmap(partial(draw_pair, folder, seed), enumerate(moods), chunksize=ROWS_PER_WORKER)
    lines = ["guid,tag", *(f"{number},{merge_moods(*pair)}" for number, pair in enumerate(moods))]
    (folder / "train.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def draw_pair(folder: Path, seed: int, number: int, moods: tuple[str, str]) -> None:
    """Write the files of one pair, which depend on `number` and `seed` alone."""
    rng, noise = random.Random(f"{seed} {number}"), np.random.default_rng([seed, number])
    stem = folder / "data" / str(number)
    text = f"{write_tweet(moods[0], rng)} {write_tweet(moods[0], rng)}\n"
    stem.with_suffix(".txt").write_text(text, encoding="utf-8")
    picture = draw_picture(moods[1], rng)
    scale = LONGEST_SIDE / max(picture.size)
    pixels = np.asarray(picture.resize([round(side * scale) for side in picture.size], Image.Resampling.BICUBIC))
    grain = noise.normal(0, 8, pixels.shape)
    picture = Image.fromarray((pixels + grain).clip(0, 255).astype(np.uint8))
    picture.save(stem.with_suffix(".jpg"), quality=75)


def write_clip(folder: Path, data_dir: Path, *, tiny: bool) -> None:
    """A random CLIP of ViT-B/32's shape (151 M parameters) with a tokenizer that is trained on the texts."""
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in sorted((data_dir / "data").glob("*.txt"))]
    tokenizer = train_wordpiece(texts, vocab_size=1_000 if tiny else 40_000, max_length=77)
    config = CLIPConfig()
    if tiny:
        config = CLIPConfig(text_config=TINY, vision_config=TINY, projection_dim=16)
        config.text_config.vocab_size = len(tokenizer)
    config.text_config.pad_token_id = tokenizer.pad_token_id
    config.text_config.bos_token_id = tokenizer.cls_token_id
    config.text_config.eos_token_id = tokenizer.sep_token_id
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil().save_pretrained(folder)
