"""What each modality contributes to the answers: exact Shapley values of the two players text and picture.

The worth v(S) of a set S of modalities is the probability that the model gives, from S alone, to the class that it
predicts from both. Legend: N rows, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from data_utils.console.tables import format_table

INPUTS = ("full", "text_only", "image_only", "none")
# A modality is ignored where adding it moves the probability of the answer by less than this in every row.
MIN_EFFECT = 0.01
MODALITIES = {"text": "text", "image": "picture"}  # in names, in sentences
COLUMNS = ("shapley_text", "shapley_image", "synergy")
CHANGES = ("changed_without_text", "changed_without_image")

Columns = dict[str, NDArray[Any]]


def compute_contributions(probabilities: Mapping[str, ArrayLike]) -> Columns:
    """Shapley values of text and picture, and their synergy, for the predicted class of every row.

    For two players (Shapley 1953): shapley_text is the mean of v(text) - v(none) and v(both) - v(image), shapley_image
    likewise, and together they are v(both) - v(none). synergy is v(both) - v(text) - v(image) + v(none), the
    interaction index of Grabisch and Roubens (1999): under 0 where both say the same. Which of the two weighs more
    doesn't depend on v(none), of vectors that were never trained together (modality dropout leaves each row one).

    Args:
        probabilities: (N, C) for each of the four `INPUTS`, N >= 1.

    Returns:
        (N,) each: prediction (class ids), the three values, and changed_without_text and changed_without_image, whether
        the predicted class is another without that modality.
    """
    values = {name: np.asarray(probabilities[name], dtype=np.float64) for name in INPUTS}
    answers = {name: value.argmax(axis=1) for name, value in values.items()}
    rows = np.arange(len(answers["full"]))
    both, text, image, none = (values[name][rows, answers["full"]] for name in INPUTS)
    return {
        "prediction": answers["full"],
        "shapley_text": ((text - none) + (both - image)) / 2,
        "shapley_image": ((image - none) + (both - text)) / 2,
        "synergy": (both - text) - (image - none),
        "changed_without_text": answers["image_only"] != answers["full"],
        "changed_without_image": answers["text_only"] != answers["full"],
    }


def summarise_contributions(columns: Columns, label_names: Sequence[str]) -> dict[str, Any]:
    """Means over all rows and over those of each predicted class, and what stands out.

    Returns:
        Ready for JSON: overall and per_class {name: the same figures}, and remarks. The figures: rows; shapley_text,
        shapley_image and synergy (means); abs_shapley_text and abs_shapley_image (means of absolute values);
        image_share, abs_shapley_image as a share of both, None where both are 0; changed_without_text and
        changed_without_image (shares of rows). A class that is never predicted has only rows, 0.
    """
    per_class = {
        label: _means({name: values[columns["prediction"] == number] for name, values in columns.items()})
        for number, label in enumerate(label_names)
    }
    remarks = [remark for modality in MODALITIES if (remark := _remark(columns, modality))]
    return {"overall": _means(columns), "per_class": per_class, "remarks": remarks}


def format_contributions(summary: dict[str, Any], *, title: str) -> str:
    """The table of `summarise_contributions` and its remarks as plain text."""
    heads = ["predicted class", "rows", "text", "picture", "synergy", "picture's share", "needs text", "needs picture"]
    table = [heads]
    for name, figures in {**summary["per_class"], "all": summary["overall"]}.items():
        cells = [""] * (len(heads) - 2)
        if figures["rows"]:
            share = "" if figures["image_share"] is None else f"{figures['image_share']:.1%}"
            changed = [f"{figures[key]:.1%}" for key in CHANGES]
            cells = [*(f"{figures[key]:+.3f}" for key in COLUMNS), share, *changed]
        table.append([name, str(figures["rows"]), *cells])
    lines = [
        f"contributions on {title}: {summary['overall']['rows']} rows, mean Shapley values of the predicted class's "
        "probability",
        "picture's share: of the absolute values; needs: rows whose answer is another one without it",
        *("", format_table(table), "", *summary["remarks"]),
    ]
    return "\n".join(lines).rstrip()


def _means(columns: Columns) -> dict[str, Any]:
    num_rows = len(columns["prediction"])
    if not num_rows:
        return {"rows": 0}
    text, image = (float(np.abs(columns[name]).mean()) for name in COLUMNS[:2])
    return {
        "rows": num_rows,
        **{name: float(columns[name].mean()) for name in COLUMNS},
        "abs_shapley_text": text,
        "abs_shapley_image": image,
        "image_share": image / (text + image) if text + image else None,
        **{name: float(columns[name].mean()) for name in CHANGES},
    }


def _remark(columns: Columns, modality: str) -> str | None:
    # Adding a modality to nothing and to the other one moves v by its Shapley value less and plus half the synergy.
    effects = np.abs(columns[f"shapley_{modality}"]) + np.abs(columns["synergy"]) / 2
    word, largest, num_rows = MODALITIES[modality], float(effects.max()), len(effects)
    if largest < MIN_EFFECT:
        return (
            f"The model ignores the {word}: adding it moves the probability of the answer by at most {largest:.4f} in "
            f"any of {num_rows} rows."
        )
    if columns[f"changed_without_{modality}"].any():
        return None
    return (
        f"Taking the {word} away changes none of the {num_rows} answers, though it moves a probability by up to "
        f"{largest:.3f}."
    )
