"""The private methods of transformers.Trainer that are overridden or called: few, in one place, and as they were."""

import inspect

import pytest
from transformers import Trainer

from training.engine.resumable import ResumableTrainer
from training.engine.stream_trainer import StreamTrainer

FILE = "training/engine/resumable.py"
OVERRIDDEN = {
    "_prepare_for_training": ["max_steps", "train_dataloader", "resume_from_checkpoint"],
    "_load_from_checkpoint": ["resume_from_checkpoint", "model"],
    "_run_epoch": [
        *("model", "epoch", "train_dataloader", "steps_in_epoch", "num_update_steps_per_epoch", "trial"),
        *("ignore_keys_for_eval", "start_time", "resume_from_checkpoint", "epochs_trained"),
        "steps_trained_in_current_epoch",
    ],
    "_get_grad_norm": ["model", "grad_norm"],
    "_get_output_dir": ["trial"],
    "_save_checkpoint": ["model", "trial"],
    "_load_best_model": [],
}
CALLED = {"_save": ["output_dir", "state_dict"]}


def test_overrides_are_few_and_in_one_place():
    ours = StreamTrainer.__mro__[: StreamTrainer.__mro__.index(Trainer)]
    private = {name: each for each in ours for name in vars(each) if name.startswith("_") and not name.endswith("__")}
    found = {name for name in private if hasattr(Trainer, name)}
    assert found == OVERRIDDEN.keys()
    assert {private[name] for name in found} == {ResumableTrainer}
    assert len(found) <= 8


@pytest.mark.parametrize("name", [*OVERRIDDEN, *CALLED])
def test_trainer_has_the_method_with_the_parameters_that_it_had(name):
    method = getattr(Trainer, name, None)
    assert method is not None, (
        f"transformers.Trainer has no {name} any more: what {FILE} does in it needs another place."
    )
    parameters = list(inspect.signature(method).parameters)[1:]
    expected = (OVERRIDDEN | CALLED)[name]
    assert parameters == expected, f"Trainer.{name} takes {parameters}, not {expected}, for which {FILE} was written."
