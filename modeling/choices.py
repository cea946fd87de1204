"""What the model's settings may be; nothing heavy is imported here, so that flags are checked at once."""

from __future__ import annotations

from .errors import InputError

DEFAULT_THRESHOLD = 0.5  # probability from which on a class is answered, one of several labels
NO_CLASS = -100  # class id of a row without a label
ARCHITECTURES = ("baseline", "vilbert", "clip")
FREEZE_CHOICES = ("none", "text", "image", "both")
POOLINGS = ("default", "mean")
PICTURE_POOLINGS = ("mean", "attention")
RESIZE_MODES = ("shortest", "squash")
# Most pixels that are decoded; a JPEG of more is decoded at 1/2, 1/4 or 1/8 instead.
MAX_PIXELS = 100_000_000
MAX_WIDTH = 65_536  # of the vectors that towers are brought to
# By the task, what transformers calls it.
PROBLEM_TYPES = {
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}
_BOTH = ("text", "image")
# The fusion heads (see `modeling.fusion.FUSION_HEADS`), and which modalities each of them reads.
FUSIONS = {
    "early": _BOTH,
    "late": _BOTH,
    "clip_match": _BOTH,
    "attn": _BOTH,
    "transformer": _BOTH,
    "cross_attn": _BOTH,
    "co_attn": _BOTH,
    "text_only": ("text",),
    "image_only": ("image",),
}


def frozen_modalities(freeze: str, unfreeze_last: int | None) -> tuple[str, ...]:
    """Which of "text" and "image" have a tower that is frozen, wholly or but for its last blocks."""
    if freeze == "both" or (freeze == "none" and unfreeze_last is not None):
        return _BOTH
    return () if freeze == "none" else (freeze,)


def check_width(name: str, width: int | None) -> None:
    """`InputError` unless vectors can have the width; `name` says which ones."""
    if width is not None and not 2 <= width <= MAX_WIDTH:
        raise InputError(f"Got {name} {width}; allowed are 2 to {MAX_WIDTH:,}.")
