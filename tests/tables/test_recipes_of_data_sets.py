"""configs/data_sets/: each recipe over files of its data set's layout, trained, and its test file answered."""

from __future__ import annotations

import json
import re
import subprocess
from itertools import product
from pathlib import Path

import pytest
from conftest import LABELS, ONE_EPOCH, ROOT, SMALL, TINY, draw_photo, read_csv

import train
from data_utils.tables.opening import open_source
from modeling.text import TEXT_SEPARATOR
from training.flags.parsing import parse_arguments

FOLDER, DATA = ROOT / "configs" / "data_sets", Path("data")
SIZES = {"train": 12, "val": 6, "test": 4}
PARTS = tuple(SIZES)


def draw(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_photo(seed).save(path)


def write_lines(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def write_hateful_memes():
    """Parts share a text, and the test has no labels."""
    root = DATA / "hateful_memes"
    for part, name in zip(PARTS, ("train", "dev_seen", "test_seen"), strict=True):
        rows = []
        for number in range(SIZES[part]):
            row = {"id": 42953 + 100 * PARTS.index(part) + number, "img": f"img/{part}{number}.png"}
            row |= {"label": number % 2, "text": f"its their character {number // 2}"}
            draw(root / row["img"], row["id"])
            rows.append({key: row[key] for key in row if part != "test" or key != "label"})
        write_lines(root / f"{name}.jsonl", map(json.dumps, rows))


def write_mmsd2():
    """Rows and pictures are named by numbers of 18 digits."""
    root = DATA / "mmsd2"
    for part, name in zip(PARTS, ("train", "valid", "test"), strict=True):
        ids = [915657464401580032 + 100 * PARTS.index(part) + number for number in range(SIZES[part])]
        rows = [{"image_id": id_, "text": f"what a day <user> {id_ % 1000}", "label": id_ % 2} for id_ in ids]
        write_lines(root / "text_json_final" / f"{name}.json", [json.dumps(rows)])
        for id_ in ids:
            draw(root / "dataset_image" / f"{id_}.jpg", id_)


def write_crisismmd():
    """Two rows of each tweet, and quotes that aren't closed."""
    root = DATA / "CrisisMMD_v2.0"
    header = "event_name tweet_id image_id tweet_text image label label_text label_image label_text_image"
    for part, name in zip(PARTS, ("train", "dev", "test"), strict=True):
        rows = [header.split()]
        for number in range(SIZES[part]):
            tweet = f"91779104415818547{PARTS.index(part)}{number // 2:02}"
            id_, label = f"{tweet}_{number % 2}", ("informative", "not_informative")[number // 2 % 2]
            image, text = f"data_image/irma/10_10_2017/{id_}.jpg", f'"The "storm" {number // 2} of {part}'
            rows.append(["irma", tweet, id_, text, image, label, label, label, "Positive"])
            draw(root / image, id_)
        path = root / "crisismmd_datasplit_all" / f"task_informative_text_img_{name}.tsv"
        write_lines(path, map("\t".join, rows))


def write_twitter(year):
    """Two targets of each tweet; columns of equal names, of which the test's header lacks one."""
    for part, name in zip(PARTS, ("train", "dev", "test"), strict=True):
        names = "#1 ImageID\t#2 String\t#2 String" if part == "test" else "#1 Label\t#2 ImageID\t#3 String\t#3 String"
        lines = [f"index\t{names}"]
        for number in range(SIZES[part]):
            tweet, target = f"{part}{number // 2}", ("Malta", "Mdina")[number % 2]
            text = f'" Mdina in Malta {tweet}'.replace(target, "$T$")
            lines.append(f"{number + 1}\t{number % 3}\t{tweet}.jpg\t{text}\t{target}")
            draw(DATA / f"twitter{year}_images" / f"{tweet}.jpg", tweet)
        write_lines(DATA / f"twitter{year}" / f"{name}.tsv", lines)


def write_mvsa(name, annotators):
    """Each pair of labels at least twice, those that contradict each other too."""
    lines, root = ["ID\ttext,image"], DATA / name
    for number, votes in enumerate([*product(LABELS, LABELS)] * 2, start=1):
        lines.append("\t".join([str(number), *[",".join(votes)] * annotators]))
        draw(root / "data" / f"{number}.jpg", number)
        (root / "data" / f"{number}.txt").write_text(f"tweet of {number}")
    write_lines(root / "labelResultAll.txt", lines)


TWITTER = {"labels": ["0", "1", "2"], "sizes": (12, 6, 4), "name": "1"}
TWITTER |= {"text": f'" Mdina in $T$ train0{TEXT_SEPARATOR}Malta', "written": ["1", "0", "test0.jpg"]}
MVSA = {"labels": [*LABELS], "sizes": (11, 3, 0), "name": "1", "text": "tweet of 1", "written": ["1", "tweet of 1"]}
CASES = {
    "hateful_memes": {
        "write": write_hateful_memes,
        **{"labels": ["0", "1"], "sizes": (12, 6, 0), "name": "42953", "text": "its their character 0"},
        **{"asked": "hateful_memes/test_seen.jsonl", "written": ["43153", "img/test0.png"]},
    },
    "mmsd2": {
        "write": write_mmsd2,
        **{"labels": ["0", "1"], "sizes": (12, 6, 4), "name": "915657464401580032", "text": "what a day <user> 32"},
        **{"asked": "mmsd2/text_json_final/test.json", "written": ["915657464401580232"]},
    },
    "crisismmd": {
        "write": write_crisismmd,
        **{"labels": ["informative", "not_informative"], "sizes": (12, 6, 4), "name": "91779104415818547000_0"},
        **{"text": '"The "storm" 0 of train', "written": ["irma", "91779104415818547200"]},
        "asked": "CrisisMMD_v2.0/crisismmd_datasplit_all/task_informative_text_img_test.tsv",
    },
    "mvsa_single": {"write": lambda: write_mvsa("MVSA_Single", 1), "asked": "MVSA_Single", **MVSA},
    "mvsa_multiple": {"write": lambda: write_mvsa("MVSA", 3), "asked": "MVSA", **MVSA},
    "twitter_2015": {"write": lambda: write_twitter(2015), "asked": "twitter2015/test.tsv", **TWITTER},
    "twitter_2017": {"write": lambda: write_twitter(2017), "asked": "twitter2017/test.tsv", **TWITTER},
}


def test_every_recipe_is_tried():
    assert sorted(CASES) == sorted(path.stem for path in FOLDER.iterdir())


@pytest.mark.parametrize("name", CASES)
def test_recipe_trains_on_the_files_as_published_and_answers_the_test(name, tmp_path, monkeypatch, evaluate_main):
    case, path = CASES[name], FOLDER / f"{name}.yaml"
    monkeypatch.chdir(tmp_path)
    case["write"]()
    for command in re.findall(r"^#   (sed .*)", path.read_text(), flags=re.MULTILINE):
        subprocess.run(["bash", "-c", command], check=True)
    words = ["--config", str(path), "--cache_dir", "cache", "--from_scratch", "--text_config", json.dumps(TINY)]
    words += ["--vision_config", json.dumps(TINY | {"patch_size": 16}), *SMALL, *ONE_EPOCH]
    train.main([*words, "--max_steps", "1"])

    _, data, args = parse_arguments(words)
    run = Path(args.output_dir)
    assert run == Path("runs", name)
    source = open_source(data)
    rows = source.rows([])
    assert (rows.guids[0], source.locate(rows)[0][0]) == (case["name"], case["text"])
    split = json.loads((run / "split.json").read_text())
    assert tuple(len(split.get(part, ())) for part in PARTS) == case["sizes"]
    metrics = json.loads((run / "metrics.json").read_text())
    assert (metrics["val"]["num_rows"], list(metrics["val"]["per_class"])) == (case["sizes"][1], case["labels"])
    assert read_csv(run / "quarantine.csv") == []  # every text and picture is there

    evaluate_main(run, "--predict", DATA / case["asked"], "--output", "answers.csv", "--cache_dir", "cache")
    answers = read_csv(tmp_path / "answers.csv")
    assert len(answers) == (SIZES["test"] if "mvsa" not in name else 14)
    assert list(answers[0].values())[: len(case["written"])] == case["written"]
    assert {row["prediction"] for row in answers} <= set(case["labels"])
