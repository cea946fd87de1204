"""The card of a saved model, its README.md: what it is, of which data, how well it answers, what is not known of it.

It names no folder of the machine, and nothing that comes from the data is Markdown or HTML in it.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from data_utils.console.screen import printable
from data_utils.console.tables import MAX_CELL, format_interval, format_markdown
from data_utils.splits.split_file import load_split
from data_utils.system.bounded import read_bounded
from data_utils.system.files import write_text
from modeling.choices import DEFAULT_THRESHOLD, FUSIONS, frozen_modalities
from modeling.configuration import SentimentConfig
from run_files.predictions_csv import MAX_BYTES
from run_files.run_folder import RunFolder

_TEMPLATE = Path(__file__).with_name("model_card.md")
_CLASS_SCORES = {"support": "rows", "precision": "precision", "recall": "recall", "f1": "F1", "average_precision": "AP"}
# What Markdown or HTML may take for a mark or a link; in the midst of a word _ is none.
_MARKUP = re.compile(r"[\\`*\[\]#!~$:@|<>&]|(?<!\w)_|_(?!\w)|(?<=www)\.", re.IGNORECASE)
_OF_HUB = re.compile(r"([\w.-]+/)?[\w.-]+(:[\w.-]+)?")  # names, as paths are absolute in a config.yaml
Parts = Mapping[str, Mapping[str, Any]]


def write_card(
    run: RunFolder, folder: Path, configs: Sequence[SentimentConfig], parts: Parts, titles: Mapping[str, str]
) -> None:
    """Write the card of one or more models of a run into the folder that they are saved in.

    Args:
        configs: of the models, which differ in their calibration alone.
        parts: figures by the title of the rows that they are of.
        titles: of the scores; the baseline has the first one.
    """
    sections, metrics, config = run.load_arguments(), run.load_metrics(), configs[0]
    data, environment = sections["data"], sections["environment"]
    scores = {score: title for score, title in titles.items() if any(score in each for each in parts.values())}
    sources, named = environment.get("sources"), data.get("data") or [data["data_dir"]]
    names, reads = ", ".join(map(_shorten, named)), FUSIONS[config.fusion]
    counts = (metrics.get("training") or {}).get("label_counts")
    fold = re.search(r"fold-(\d+)\.json$", data.get("split_file") or "")
    versions = {"python": environment.get("python"), **environment.get("versions", {})}
    card = ModelCard.from_template(
        ModelCardData(
            library_name="transformers",
            pipeline_tag="image-classification" if reads == ("image",) else "text-classification",
            tags=["multimodal", *reads, config.task, config.architecture, config.fusion],
            base_model=sorted(filter(_OF_HUB.fullmatch, {*(sources or {}).values()})) or None,
            datasets=[name.partition(":")[0] for name in named if _OF_HUB.fullmatch(name)] or None,
            metrics=list(scores) or None,
            model_name=f"{config.architecture}-{config.fusion}",
            eval_results=[
                EvalResult("text-classification", "custom", names, score, figures[score], dataset_split=part)
                for part, figures in parts.items()
                for score in scores
                if figures.get(score) is not None
            ]
            or None,
        ),
        template_path=str(_TEMPLATE),
        config=config,
        num_models=len(configs),
        reads=reads,
        parts=parts,
        best=metrics.get("best"),
        fold=fold and fold[1],
        temperatures=sorted({f"{each.temperature:.3f}" for each in configs}),
        model=format_markdown([["", ""], *_describe_model(config, sections, metrics.get("parameters") or {})]),
        data=format_markdown([["", ""], ["data", escape(names)], *_describe_rows(run, sections, metrics, parts)]),
        scores=format_markdown(list(_tabulate_scores(parts, scores))),
        classes=format_markdown(list(_tabulate_classes(configs, parts, counts))),
        versions=format_markdown([["", "version"], *([escape(each) for each in pair] for pair in versions.items())]),
    )
    write_text(folder / "README.md", str(card))


def escape(value: object) -> str:
    """A value as plain words on one line of Markdown, whatever marks it has."""
    text = printable(" ".join(str(value).split()), MAX_CELL)
    return _MARKUP.sub(lambda mark: f"&#{ord(mark[0])};", text)


def _shorten(name: str) -> str:
    """A hub's name as it is, of a path or a URL the last part."""
    return name if _OF_HUB.fullmatch(name) else Path(name.partition("?")[0]).name


def _describe_model(
    config: SentimentConfig, sections: Mapping[str, Any], parameters: Mapping[str, int]
) -> Iterator[list[str]]:
    sources, rank = sections["environment"].get("sources"), sections["model"].get("lora_rank")
    yield ["architecture", f"{config.architecture}, fusion head {config.fusion}"]
    for kind, tower in {"text": config.text_tower, "image": config.vision_tower}.items():
        if tower is not None:
            is_frozen = kind in frozen_modalities(config.freeze, config.unfreeze_last)
            but = f" but for its last {config.unfreeze_last} blocks" if config.unfreeze_last else ""
            state = "trained" if rank is None else f"trained by adapters of rank {rank}, which are merged"
            parts = [tower["class_name"], f"frozen{but}" if is_frozen else state]
            if sources is not None:  # runs of before don't tell
                parts.append(f"from {_shorten(sources[kind])}" if kind in sources else "from random weights")
            yield [f"{kind} tower", escape(", ".join(parts))]
    total, trained = (f"{parameters.get(name, 0) / 1e6:.2f} million" for name in ("total", "trainable"))
    yield ["parameters", f"{total}, {trained} of them trained"]
    yield ["texts", f"cleaning {config.text_cleaning}, cut to {config.max_length} tokens"]
    yield ["pictures", "{image_size} px, {resize_mode}".format(**config.picture or {})]


def _describe_rows(
    run: RunFolder, sections: Mapping[str, Any], metrics: Mapping[str, Any], parts: Parts
) -> Iterator[list[str]]:
    split, folds = "as the shards have it", sections.get("folds")
    if folds is not None:
        split = f"{folds['num_folds']} folds by group and class, seeds {', '.join(map(str, folds['seeds']))}"
    elif run.split_file.is_file():
        found = load_split(run.split_file)
        drawn = "as declared" if found.val_ratio is None else f"{found.val_ratio:g} for validation, by group and class"
        split = f"{drawn}, seed {found.seed}, SHA-256 {found.sha256}"
    yield ["split", split]
    counts = {"training": (metrics.get("training") or {}).get("num_train_rows")} | {
        part: figures["num_rows"] for part, figures in parts.items()
    }
    yield ["rows", ", ".join(f"{count} {part}" for part, count in counts.items() if count is not None)]
    content = read_bounded(run.quarantine_file, MAX_BYTES) if run.quarantine_file.is_file() else b""
    rows = csv.DictReader(io.StringIO(content.decode("utf-8", "replace")))
    faults = Counter(f"{row.get('reason')}, {row.get('action')}" for row in rows)
    told = "; ".join(f"{count} {fault}" for fault, count in sorted(faults.items()))
    yield ["faulty rows", escape(told or "none")]


def _tabulate_scores(parts: Parts, scores: Mapping[str, str]) -> Iterator[list[str]]:
    yield ["", *parts]
    for score, title in scores.items():
        yield [title, *(format_interval(each.get(score), each.get(f"{score}_interval")) for each in parts.values())]
    for first, title in list(scores.items())[:1]:
        guesses = (each["majority_baseline"] for each in parts.values())
        yield [f"{title} of one answer for all", *(f"{each[first]:.3f} ({escape(each['label'])})" for each in guesses)]


def _tabulate_classes(
    configs: Sequence[SentimentConfig], parts: Parts, counts: Mapping[str, int] | None
) -> Iterator[list[str]]:
    """What is known of each class: training rows, figures of the parts, and from which probability it is answered."""
    labels = configs[0].id2label.values()
    columns: dict[str, Mapping[str, Any]] = {"training rows": counts} if counts else {}
    for part, figures in parts.items():
        for score, title in _CLASS_SCORES.items():
            if found := {name: row[score] for name, row in figures.get("per_class", {}).items() if score in row}:
                columns[f"{part}: {title}"] = found
    if configs[0].task == "multi_label":
        thresholds = np.mean([each.thresholds or [DEFAULT_THRESHOLD] * len(labels) for each in configs], axis=0)
        columns["answered from"] = dict(zip(labels, thresholds.tolist(), strict=True))
    yield ["class", *columns]
    for name in labels:
        values = [column[name] for column in columns.values()]
        yield [escape(name), *(str(each) if isinstance(each, int) else format_interval(each) for each in values)]
