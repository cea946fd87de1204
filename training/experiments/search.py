"""One search of a tuning: optuna's study of it in the journal, which a killed job goes on from, and how it is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np

from modeling.errors import InputError
from run_files.predictions_csv import PredictionTable
from run_files.tuning_folder import TuningFolder, Winner
from training.experiments.tuning_recipe import TuneRecipe
from training.flags.parsing import Flags
from training.flags.search_space import Axis, unpack
from training.launch.console import quiet

Share = Callable[[Callable[[], Any]], Any]
Prunes = Callable[[float, int], bool]
_PARSING = Lock()  # which makes notices quiet for all threads


class Attempt(NamedTuple):
    """What came of a trial.

    Attributes:
        value: the figure that trials are chosen by; None where there is none, for `remarks["error"]`.
        remarks: what is kept of it, for the table of all trials.
        is_pruned: whether it was given up.
        inner, outer: its answers for the rows that choose and, of a winner, for held-out rows.
    """

    value: float | None
    remarks: dict[str, Any]
    is_pruned: bool = False
    inner: PredictionTable | None = None
    outer: PredictionTable | None = None


def mend_journal(path: Path) -> None:
    """Take away what a killed job may have left: a lock, and a line that is half written."""
    Path(f"{path}.lock").unlink(missing_ok=True)
    if path.exists():
        content = path.read_bytes()
        path.write_bytes(content[: content.rfind(b"\n") + 1])


class Search:
    """Draws trials, is told what came of them, and knows the best.

    A trial depends on the seed and on the trials before it alone, however often the search was killed.
    """

    def __init__(
        self, journal: Path, number: int, axes: Mapping[str, Axis], *, seed: int, is_greater_better: bool
    ) -> None:
        import optuna
        from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalStorage

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.number, self._axes, self._seed = number, axes, seed
        self._study = optuna.create_study(
            # Links, the other kind of lock, can't be made on every volume.
            storage=JournalStorage(JournalFileBackend(str(journal), lock_obj=JournalFileOpenLock(str(journal)))),
            study_name=str(number),
            direction="maximize" if is_greater_better else "minimize",
            pruner=optuna.pruners.MedianPruner(),
            load_if_exists=True,
        )
        self._states = optuna.trial.TrialState
        for trial in self._study.get_trials(states=[self._states.RUNNING]):  # was interrupted: it is made again
            self._study.tell(trial.number, state=self._states.FAIL)
        self._trial: Any = None

    def finished(self) -> list[Any]:
        """optuna's records of the trials that came to an end, in their order."""
        return self._study.get_trials(deepcopy=False, states=[self._states.COMPLETE, self._states.PRUNED])

    def ask(self, num_trials: int) -> tuple[int, dict[str, Any]] | None:
        """The number of the next trial from 0, and its values as a recipe has them; None once there were so many."""
        import optuna

        done = len(self.finished())
        if done >= num_trials:
            return None
        seed = np.random.SeedSequence((self._seed, self.number, done)).generate_state(1)[0]
        self._study.sampler = optuna.samplers.TPESampler(seed=int(seed))
        self._trial = self._study.ask({name: _distribute(axis) for name, axis in self._axes.items()})
        return done, self._read(self._trial.params)

    def prunes(self, value: float, step: int) -> bool:
        """Whether the trial is to be given up, as its figure after so many evaluations is below most others'."""
        self._trial.report(value, step)
        return self._trial.should_prune()

    def tell(self, attempt: Attempt) -> None:
        """Take down what came of the trial."""
        for name, value in attempt.remarks.items():
            self._trial.set_user_attr(name, value)
        if attempt.value is None or attempt.is_pruned:  # neither is chosen, but both warn of their values
            self._study.tell(self._trial, state=self._states.PRUNED)
        else:
            self._study.tell(self._trial, attempt.value)

    def choose(self, num_trials: int) -> Winner:
        """The best of the first trials; `InputError` where none came to an end."""
        trials = self.finished()[:num_trials]
        whole = [number for number, trial in enumerate(trials) if trial.state == self._states.COMPLETE]
        if not whole:
            reason = next((trial.user_attrs.get("error") for trial in trials if "error" in trial.user_attrs), "pruned")
            raise InputError(f"None of {len(trials)} trials came to an end ({reason}); tune between other values.")
        sign = 1 if self._study.direction.name == "MAXIMIZE" else -1
        best = max(whole, key=lambda number: sign * trials[number].value)
        return Winner(self.number, num_trials, best, trials[best].value, self._read(trials[best].params))

    def describe(self, num_trials: int) -> list[dict[str, Any]]:
        """The first finished trials as rows of a table."""
        rows = []
        for number, trial in enumerate(self.finished()[:num_trials]):
            row = {"search": self.number, "trial": number, **trial.params, "state": trial.state.name.lower()}
            rows.append(row | {"value": trial.value, "error": None} | trial.user_attrs)
        return rows

    def _read(self, params: Mapping[str, Any]) -> dict[str, Any]:
        choices = {name: {" ".join(each): each for each in axis.choices} for name, axis in self._axes.items()}
        return {name: unpack(choices[name][value]) if choices[name] else value for name, value in params.items()}


def _distribute(axis: Axis) -> Any:
    """The axis as optuna has it."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if axis.choices:
        return CategoricalDistribution([" ".join(words) for words in axis.choices])
    if axis.is_whole:
        return IntDistribution(int(axis.low), int(axis.high), log=axis.is_log, step=int(axis.step or 1))
    return FloatDistribution(axis.low, axis.high, log=axis.is_log, step=axis.step)


def open_search(folder: TuningFolder, recipe: TuneRecipe, number: int) -> Search:
    """The search of a number, as far as it has come."""
    args = recipe.flags.training
    better = bool(args.greater_is_better)
    return Search(folder.journal_file, number, recipe.axes, seed=args.seed, is_greater_better=better)


def conduct(
    number: int,
    folder: TuningFolder,
    recipe: TuneRecipe,
    attempt: Callable[[Flags, int, str, Prunes | None], Attempt],
    *,
    share: Share = lambda work: work(),
) -> None:
    """Make one search, and let its winner be judged by rows that it never saw.

    Args:
        attempt: trains by flags on the split of a number, under a name; it may be told to give up.
        share: has work on the study done, and its result known to this rank.
    """
    last = recipe.num_folds
    seen = last if number == last else last + 1 + number
    opened: list[Search] = []

    def prunes(value: float, step: int) -> bool:
        return share(lambda: opened[0].prunes(value, step))

    def make(values: dict[str, Any], split: int, name: str, prunes: Prunes | None) -> Attempt:
        try:
            with _PARSING, quiet(True):
                flags = recipe.parse(values)
        except InputError as error:  # flags that are right each for itself
            return Attempt(None, {"error": str(error)})
        return attempt(flags, split, f"search-{number}-{name}", prunes)

    share(lambda: opened.append(open_search(folder, recipe, number)))
    while (asked := share(lambda: opened[0].ask(recipe.num_trials))) is not None:
        made = make(asked[1], seen, f"trial-{asked[0]}", prunes)
        share(partial(lambda made: opened[0].tell(made), made))
    winner = share(lambda: opened[0].choose(recipe.num_trials))
    made = make(winner.values, number, "winner", None)
    if made.inner is not None:  # of many ranks the main one has it
        folder.write_winner(winner, made.inner, made.outer)
