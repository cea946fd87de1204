"""What a training and an evaluation set in their process, for one that goes on with other work afterwards."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from data_utils.system.home import ensure_home
from data_utils.system.refusals import refuse_long_names
from modeling.errors import InputError
from training.launch.ranks import launched_world_size


@contextmanager
def borrow_process() -> Iterator[None]:
    """In here the libraries may set what they like: environment, warnings and states are afterwards as they were.

    Raises:
        InputError: several processes were launched, which would each do the same work.
    """
    if launched_world_size() > 1:
        raise InputError(
            "PairClassifier works in one process, and several were launched; launch train.py and evaluate.py instead."
        )
    import datasets
    from accelerate.state import AcceleratorState, GradientState, PartialState
    from transformers.utils import logging as transformers_logging

    # With that of an earlier training accelerate refuses another precision.
    states = [kind._shared_state for kind in (AcceleratorState, GradientState, PartialState)]
    earlier, environment = [dict(state) for state in states], dict(os.environ)
    bars = [
        (transformers_logging.is_progress_bar_enabled(), transformers_logging.enable_progress_bar),
        (not datasets.are_progress_bars_disabled(), datasets.enable_progress_bars),
    ]
    for state in states:
        state.clear()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads don't go with processes that are forked
    transformers_logging.disable_progress_bar()
    datasets.disable_progress_bars()
    try:
        with warnings.catch_warnings(), refuse_long_names():
            ensure_home()
            yield
    finally:
        for state, values in zip(states, earlier, strict=True):
            state.clear()
            state.update(values)
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)
        for was_on, turn_on in bars:
            if was_on:
                turn_on()
