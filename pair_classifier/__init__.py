"""Classifiers of text + picture pairs from Python: `from pair_classifier import PairClassifier`, see docs/python.md."""

from importlib.util import find_spec
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parents[1]
for _name in ("modeling", "run_files", "data_utils", "evaluation", "training"):
    _spec = find_spec(_name)
    _found = None if _spec is None or _spec.origin is None else Path(_spec.origin).resolve().parent
    if _found != _CHECKOUT / _name:  # of another project, in a folder that Python looks into before
        raise ImportError(
            f"pair_classifier needs the package {_name} of {_CHECKOUT}, and Python finds {_found or 'none'}: install "
            "the checkout with pip install -e, and start Python where no other package has that name."
        )

from pair_classifier.classifier import PairClassifier  # noqa: E402

__all__ = ["PairClassifier"]
