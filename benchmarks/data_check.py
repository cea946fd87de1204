"""How much of what is planted a check of data finds, beside cleanlab and imagehash as they come.

    python -m data_utils.sample --output_dir data/sample --num_pairs 2000
    python -m benchmarks.data_check --data_dir data/sample --work_dir runs/planted

Planted into a copy of the data: wrong labels, and near copies of rows, whose picture was recompressed, resized or cut a
little, and whose text got a hashtag, an address or a slip of the pen.
"""

from __future__ import annotations

import argparse
import csv
import io
import random
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image

from data_utils.near.pairs import Numbers
from data_utils.near.pictures import read_pixels, shrink
from data_utils.prepare.pair_files import FileState
from data_utils.prepare.pairs import Pairs, load_pairs
from data_utils.quality.labels import ask_probe, find_suspects
from data_utils.quality.twins import find_twins, list_groups
from data_utils.sample import PHRASES, PLACES, SUBJECTS
from data_utils.sources.arguments import DataArguments
from data_utils.sources.label_forms import name_labels
from data_utils.system.files import write_bytes, write_csv, write_text
from data_utils.tables.opening import open_source, settle_labels
from modeling.pictures import PictureSettings

Pair = tuple[str, str]
COPY = "copy-"  # begins the guids of near copies


@dataclass(frozen=True)
class Planted:
    """What was planted: pairs of guids by the way a copy was made, and guids of rows with another label."""

    texts: dict[Pair, str]
    pictures: dict[Pair, str]
    labels: set[str]


def _recompress(picture: Image.Image, rng: random.Random) -> Image.Image:
    return picture


def _resize(picture: Image.Image, rng: random.Random) -> Image.Image:
    share = rng.uniform(0.4, 0.8)
    return picture.resize((max(1, round(picture.width * share)), max(1, round(picture.height * share))))


def _cut(picture: Image.Image, rng: random.Random) -> Image.Image:
    width, height = picture.size
    left, top, right, bottom = (rng.uniform(0, 0.06) for _ in range(4))
    return picture.crop(
        (round(width * left), round(height * top), round(width * (1 - right)), round(height * (1 - bottom)))
    )


def _slip(text: str, rng: random.Random) -> str:
    """Two neighbouring letters in the wrong order."""
    places = [
        place for place in range(len(text) - 1) if text[place : place + 2].isalpha() and text[place] != text[place + 1]
    ]
    place = rng.choice(places) if places else 0
    return text[:place] + text[place + 1 : place + 2] + text[place : place + 1] + text[place + 2 :]


PICTURES: dict[str, Callable[[Image.Image, random.Random], Image.Image]] = {
    "recompressed": _recompress,
    "resized": _resize,
    "cut": _cut,
}
TEXTS: dict[str, Callable[[str, random.Random], str]] = {
    "hashtag": lambda text, rng: f"{text} #{rng.choice(('photo', 'today', 'nofilter', 'tbt'))}",
    "address": lambda text, rng: f"{text} https://example.org/{rng.randrange(10**6)}",
    "slip": _slip,
}


def plant(source: Path, target: Path, *, copies: float = 0.03, wrong: float = 0.05, seed: int = 0) -> Planted:
    """Write a copy of a folder of pairs with so many near copies and then wrong labels, as shares of its rows."""
    rng = random.Random(seed)
    shutil.copytree(source, target)
    with (source / "train.txt").open(encoding="utf-8", newline="") as file:
        rows = [(row["guid"], row["tag"]) for row in csv.DictReader(file)]
    planted = Planted({}, {}, set())
    ways = [(picture, text) for picture in PICTURES for text in TEXTS]
    for number, (guid, tag) in enumerate(rng.sample(rows, round(copies * len(rows)))):
        by_picture, by_text = ways[number % len(ways)]
        copy = f"{COPY}{number}"
        with Image.open(target / "data" / f"{guid}.jpg") as picture:
            changed, buffer = PICTURES[by_picture](picture.convert("RGB"), rng), io.BytesIO()
        changed.save(buffer, "JPEG", quality=rng.randint(40, 80))
        write_bytes(target / "data" / f"{copy}.jpg", buffer.getvalue())
        text = (target / "data" / f"{guid}.txt").read_text(encoding="utf-8", errors="replace").strip()
        write_text(target / "data" / f"{copy}.txt", TEXTS[by_text](text, rng) + "\n")
        planted.pictures[guid, copy], planted.texts[guid, copy] = by_picture, by_text
        rows.append((copy, tag))
    labels = sorted({tag for _, tag in rows})
    for place in rng.sample(range(len(rows)), round(wrong * len(rows))):
        guid, tag = rows[place]
        rows[place] = guid, rng.choice([label for label in labels if label != tag])
        planted.labels.add(guid)
    write_csv(target / "train.txt", [("guid", "tag"), *rows])
    return planted


def score(found: Iterable[object], planted: Iterable[object], also_right: Iterable[object] = ()) -> str:
    """Precision and recall; what is right though nobody planted it counts for precision alone."""
    given, wanted = set(found), set(planted)
    right = given & (wanted | set(also_right))
    precision = len(right) / len(given) if given else float("nan")
    return f"precision {precision:.3f}, recall {len(given & wanted) / len(wanted):.3f} ({len(given)} found)"


def pairs_of(first: Iterable[int], second: Iterable[int], guids: Sequence[str]) -> set[Pair]:
    """Pairs of rows by guid, as planted; those without a copy are left out: nobody knows whether they are right."""
    named = ((guids[a], guids[b]) for a, b in zip(first, second, strict=True))
    ordered = (pair[::-1] if pair[0].startswith(COPY) else pair for pair in named)
    return {pair for pair in ordered if pair[1].startswith(COPY)}


def expand(groups: Numbers) -> tuple[list[int], list[int]]:
    """All pairs of rows of a group."""
    pairs = [pair for rows in list_groups(groups) for pair in combinations(rows, 2)]
    return [first for first, _ in pairs], [second for _, second in pairs]


def list_twins(planted: Iterable[Pair], keys: dict[str, str | None]) -> set[Pair]:
    """Pairs of a copy and a row with the key of the row it was made from, or of another copy of that."""
    origins = {copy: keys[guid] for guid, copy in planted}
    of_key: dict[str | None, list[str]] = {}
    for guid, key in keys.items():
        of_key.setdefault(origins.get(guid, key), []).append(guid)
    return {(guid, copy) for copy, key in origins.items() if key for guid in of_key[key]}


def name_clause(text: str) -> str | None:
    """Subject, place and phrase of a drawn sample's text: texts that share them differ in opener and ending alone."""
    subjects = [subject.format(place=place) for subject in SUBJECTS for place in PLACES]
    phrases = [phrase for found in PHRASES.values() for phrase in found]
    clause = [next((word for word in words if word in text), "") for words in (subjects, phrases)]
    return " ".join(clause) if all(clause) else None


def compare_hashes(pairs: Pairs, planted: set[Pair], also_right: set[Pair]) -> None:
    """imagehash's own hash of the files, all pairs within a distance."""
    import imagehash

    start, values = time.perf_counter(), []
    guids: list[str] = pairs.dataset.select_columns("guid").with_format(None)[:]["guid"]
    for file in pairs.pictures:
        assert isinstance(file, FileState)
        with Image.open(file.path) as picture:
            values.append(imagehash.phash(picture).hash.ravel())
    bits = np.stack(values)
    hashes = np.packbits(bits, axis=1).view(np.uint64)[:, 0]
    distances = np.bitwise_count(hashes[:, None] ^ hashes[None, :])
    took = time.perf_counter() - start
    for limit in (0, 4, 8, 10, 12):
        first, second = np.nonzero(np.triu(distances <= limit, 1))
        found = pairs_of(first.tolist(), second.tolist(), guids)
        print(f"  imagehash.phash, at most {limit} bits: {score(found, planted, also_right)} ({took:.1f} s)")


def compare_cleanlab(pairs: Pairs, texts: Sequence[str], labels: np.ndarray, planted: set[str]) -> None:
    """cleanlab on the answers of scikit-learn's own tf-idf and logistic regression in its own folds."""
    from cleanlab.filter import find_label_issues
    from scipy.sparse import csr_array, hstack
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict

    guids: list[str] = pairs.dataset.select_columns("guid").with_format(None)[:]["guid"]
    words = TfidfVectorizer().fit_transform(texts)
    pixels = np.stack([shrink(each)[:, ::4, ::4].ravel() / 255 for _, _, each in read_pixels(pairs.dataset)])
    for name, features in (("texts", words), ("texts and pixels", csr_array(hstack([words, csr_array(pixels)])))):
        answers = cross_val_predict(LogisticRegression(max_iter=1000), features, labels, cv=5, method="predict_proba")
        found = np.flatnonzero(find_label_issues(labels, answers, n_jobs=1)).tolist()
        print(f"  cleanlab on tf-idf of the {name}: {score({guids[row] for row in found}, planted)}")


def main() -> None:
    """Plant, check, and print precision and recall beside those of the libraries."""
    parser = argparse.ArgumentParser(description="How much of what is planted a check of data finds.")
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--work_dir", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = options.work_dir / "pairs"
    planted = plant(options.data_dir, folder, seed=options.seed)
    data = settle_labels(DataArguments(data_dir=str(folder), cache_dir=str(options.work_dir / "cache")))
    pairs = load_pairs(open_source(data), data=data, picture=PictureSettings(224, 224, "squash", 3))
    columns = pairs.dataset.select_columns(["guid", "label", "text", "text_key", "image_key"]).with_format(None)[:]
    guids, labels = columns["guid"], np.asarray(columns["label"])
    start = time.perf_counter()
    twins = find_twins(pairs.dataset, name_labels(labels, data.labels or ()))
    counts = f"{len(guids)} rows, {len(planted.texts)} near copies, {len(planted.labels)} wrong labels"
    print(f"{counts}; twins found in {time.perf_counter() - start:.1f} s")
    for side, ways in (("text", planted.texts), ("image", planted.pictures)):
        right = list_twins(ways, dict(zip(guids, columns[f"{side}_key"], strict=True)))
        if side == "text":
            right |= list_twins(
                ways, {guid: name_clause(text) for guid, text in zip(guids, columns["text"], strict=True)}
            )
        near = twins.pairs[side]
        found = pairs_of(near.first.tolist(), near.second.tolist(), guids)
        print(f"near by {side}: {score(found, ways, right)}")
        print(f"  as whole groups: {score(pairs_of(*expand(twins.groups[side]), guids), ways, right)}")
        for way in dict.fromkeys(ways.values()):
            of_way = {pair for pair, each in ways.items() if each == way}
            print(f"  {way}: recall {len(found & of_way) / len(of_way):.3f} of {len(of_way)}")
        if side == "image":
            compare_hashes(pairs, set(ways), right)
    answers = ask_probe(pairs.dataset, labels, twins, num_classes=len(data.labels), seed=42)
    suspects = find_suspects(labels, answers, twins)
    print(f"probe: accuracy {(answers.argmax(axis=1) == labels).mean():.3f} of the labels as planted")
    print(f"labels: {score({guids[each.row] for each in suspects}, planted.labels)}")
    print(f"  by the model: {score({guids[each.row] for each in suspects if each.by_model}, planted.labels)}")
    print(f"  by twins: {score({guids[each.row] for each in suspects if each.by_twin}, planted.labels)}")
    for share in (0.5, 1.0):
        most = round(share * len(planted.labels))
        print(f"  the first {most}: {score({guids[each.row] for each in suspects[:most]}, planted.labels)}")
    compare_cleanlab(pairs, columns["text"], labels, planted.labels)


if __name__ == "__main__":
    main()
