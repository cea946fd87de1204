"""What all parts share: data and model, drawn where none are given, and the way to a trainer as train.py builds it."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

from data_utils.prepare.tokens import train_wordpiece
from data_utils.sample import SampleSettings, write_sample
from data_utils.system.home import count_cores
from training.data.data import TrainingData
from training.engine.trainer import SentimentTrainer
from training.experiments.training import assemble
from training.flags.parsing import parse_arguments

ROOT = Path(__file__).resolve().parent.parent
TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
# For parts that never call the model: ViT-B/32's shape, but of one layer.
SMALL_CLIP = ["--from_scratch", "--fusion", "early"]
SMALL_CLIP += ["--text_config", '{"num_hidden_layers": 1}', "--vision_config", '{"num_hidden_layers": 1}']
LONGEST_SIDE = 400


@dataclass(frozen=True)
class Setting:
    """Folders of train.txt with data/, of the CLIP, of caches and runs; `quick` is to show only that all works."""

    data_dir: Path
    clip_name: Path
    work_dir: Path
    quick: bool

    @property
    def repeats(self) -> int:
        """Turns of each side that are counted."""
        return 1 if self.quick else 5

    def steps(self, number: int) -> int:
        """So many steps, or the few of --quick."""
        return min(number, 2) if self.quick else number

    @property
    def cache_dir(self) -> Path:
        """The cache that is warm after the first part."""
        return self.work_dir / "cache"

    def flags(self, *flags: str) -> list[str]:
        """Flags of train.py: the shipped defaults, on this setting's data, and its model unless they name another."""
        model = [] if "--model" in flags else ["--model", "clip", "--clip_name", str(self.clip_name)]
        data = ["--data_dir", str(self.data_dir), "--cache_dir", str(self.cache_dir), "--disable_tqdm", "true"]
        return [*model, *data, *flags]

    @contextmanager
    def assemble(self, *flags: str) -> Iterator[tuple[SentimentTrainer, TrainingData]]:
        """A trainer and its data, as train.py has them before its first step; its files are removed in the end."""
        with tempfile.TemporaryDirectory(dir=self.work_dir) as output:
            words = self.flags("--output_dir", output, "--save_strategy", "no", *flags)
            trainer, prepared, _ = assemble(parse_arguments(words))
            assert isinstance(prepared, TrainingData)
            yield trainer, prepared

    def launch(self, *words: str) -> str:
        """What Python prints when it runs `words` in a process of its own, with a new folder for its output.

        Raises:
            RuntimeError: it failed; with its last words.
        """
        with tempfile.TemporaryDirectory(dir=self.work_dir) as output:
            command = [sys.executable, *words, "--output_dir", f"{output}/run"]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        return done.stdout


def read_guids(data_dir: Path) -> Sequence[str]:
    """The first cell of every line of train.txt but its header."""
    lines = (data_dir / "train.txt").read_text(encoding="utf-8").splitlines()
    return [line.partition(",")[0] for line in lines][1:]


def draw_pairs(folder: Path, num_pairs: int) -> None:
    """The sample at the size of real tweets: each text twice, pictures enlarged."""
    write_sample(folder, settings=SampleSettings(num_pairs=num_pairs, num_test=1))
    for path in (folder / "data").glob("*.txt"):
        path.write_text(path.read_text(encoding="utf-8").strip() + " " + path.read_text(encoding="utf-8"))
    with multiprocessing.Pool(count_cores()) as pool:
        pool.map(enlarge, (folder / "data").glob("*.jpg"))


def enlarge(path: Path) -> None:
    """Bring a picture to 400 px and make it grainy, so that it is as slow to decode as a photograph (about 30 kB)."""
    with Image.open(path) as picture:
        scale = LONGEST_SIDE / max(picture.size)
        large = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BICUBIC)
    pixels = np.asarray(large) + np.random.default_rng(int(path.stem)).normal(0, 8, (large.height, large.width, 3))
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=75)


def write_clip(folder: Path, data_dir: Path, *, tiny: bool) -> None:
    """A random CLIP of ViT-B/32's shape (151 M parameters) with a tokenizer that is trained on the texts."""
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in sorted((data_dir / "data").glob("*.txt"))]
    tokenizer = train_wordpiece(texts, vocab_size=1_000 if tiny else 40_000, max_length=77)
    config = CLIPConfig(text_config=TINY, vision_config=TINY, projection_dim=16) if tiny else CLIPConfig()
    if tiny:
        config.text_config.vocab_size = len(tokenizer)
    config.text_config.pad_token_id = tokenizer.pad_token_id
    config.text_config.bos_token_id = tokenizer.cls_token_id
    config.text_config.eos_token_id = tokenizer.sep_token_id
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil().save_pretrained(folder)
