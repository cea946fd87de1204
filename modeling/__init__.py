"""Models: configuration, towers, fusion heads, the classifier, and how it is built from flags.

A name is imported when it is first used: the flags need neither torch nor transformers.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "FUSION_HEADS": "fusion",
    "Features": "features",
    "SentimentClassifier": "classifier",
    "SentimentConfig": "configuration",
    "SentimentOutput": "output",
    "count_matrix_weights": "parameters",
    "parameter_table": "parameters",
}


def __getattr__(name: str) -> Any:
    """The name, from its module; Python calls this for what isn't here yet."""
    if name not in _HOMES:
        raise AttributeError(f"modeling has no {name}")
    return getattr(import_module(f"modeling.{_HOMES[name]}"), name)
