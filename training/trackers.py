"""The trackers of --report_to."""

from __future__ import annotations

from collections.abc import Sequence

from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from data_utils.errors import InputError, check_choice


def list_trackers(names: Sequence[str]) -> list[str]:
    """The trackers of --report_to, each once, all of which can be had; empty for none.

    Args:
        names: words, in which commas may stand as well.

    Raises:
        InputError: an unknown tracker, one whose package is missing, or none and all beside others.
    """
    words = names.split() if isinstance(names, str) else names
    found = list(dict.fromkeys(name for word in words for name in str(word).split(",") if name))
    if found in (["none"], []):
        return []
    if found == ["all"]:
        return found  # all that are there, which Trainer lists
    for name in found:
        check_choice("--report_to", name, (*INTEGRATION_TO_CALLBACK, "none", "all"))
        if name in ("none", "all"):
            raise InputError(f"Got --report_to {' '.join(found)}; {name} stands alone.")
        try:
            INTEGRATION_TO_CALLBACK[name]()
        except (ImportError, RuntimeError) as error:
            raise InputError(
                f"Got --report_to {name}, which can't be had here ({error}); install its package, or take "
                "--report_to tensorboard or none."
            ) from error
    return found
