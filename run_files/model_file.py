"""model/config.json of a run, checked before anything is built by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_utils.system.schema import COPY_AGAIN, read_json
from modeling.configuration import SentimentConfig
from modeling.errors import InputError
from modeling.fusion import FUSION_HEADS
from modeling.untrusted import check_sizes
from run_files.schema import ModelFile


def check_model_file(path: Path) -> None:
    """Whether a config.json describes a model of ours.

    Raises:
        InputError: it can't be read, a value is of another type or out of bounds, classes aren't numbered from 0, or a
            tower that the head uses is missing; it says which.
    """
    content = read_json(path, ModelFile)
    check_sizes(content, str(path))
    fault = _find_fault(content)
    if fault:
        raise InputError(f"{path} has {fault}; {COPY_AGAIN}.")


def _find_fault(content: dict[str, Any]) -> str | None:
    labels = content.get("id2label", {})
    if set(labels) != set(map(str, range(len(labels)))):
        return "id2label whose keys are not the numbers from 0 on"
    if len(set(labels.values())) < len(labels) or len(labels) < 2:
        return "id2label that doesn't name two classes or more, each once"
    fusion = content.get("fusion", SentimentConfig.fusion)
    if fusion not in FUSION_HEADS:
        return f"the fusion {fusion!r}, where one of {', '.join(FUSION_HEADS)} belongs"
    head = FUSION_HEADS[fusion]
    for name, is_used in (("text_tower", head.uses_text), ("vision_tower", head.uses_image)):
        if is_used and content.get(name) is None:
            return f"no {name}, which the fusion {fusion} uses"
    return None if "picture" in content else "no picture"
