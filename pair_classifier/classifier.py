"""Fit, predict and evaluate from Python: what train.py and evaluate.py do, by the same functions."""

from __future__ import annotations

import gc
import json
import logging
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from data_utils.system.schema import read_json
from modeling.errors import InputError
from pair_classifier.process import borrow_process
from run_files.run_folder import RunFolder
from training.flags.parsing import check_command_line, parse_arguments

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from evaluation.arguments import EvaluationArguments
    from evaluation.predict.ensemble import Ensemble, EvalResult
    from evaluation.tasks.list_prediction import AskedList
    from run_files.explanations import Reasons
    from training.flags.parsing import Flags

logger = logging.getLogger(__name__)
_PROGRAM = {"prog": "train.py"}
_STAND_IN = "--data=rows.parquet"  # while only the other flags are judged
_OF_ROWS = ("data", "val_data", "test_data", "data_dir")
_OF_FILES = ("predict", "output", "streaming", "dataloader_num_workers", "abstain", "export", "export_int8", "explain")
# Of train.py's flags those that evaluate.py has too, and a run doesn't tell it.
_SHARED = ("cache_dir", "image_dir", "per_device_eval_batch_size", "trust_remote_code")


class PairClassifier:
    """A classifier of text + picture pairs, trained by `fit`, or by train.py and opened by `load`.

    Rows are a pandas DataFrame, a list of dicts, a `datasets.Dataset`, or what `train.py --data` takes: the path of a
    table or folder, or a list of paths. Their columns are found by usual names or named by flags; a picture may be a
    path, bytes or an image of Pillow. Of rows in memory relative paths begin in `image_dir`, by default the working
    folder. Wrong input is an `InputError`, which is a ValueError.

    Args:
        flags: those of train.py by their names, without dashes; `config` takes a recipe.

    Attributes:
        run_: the run folder.
        classes_: (C,), the names of the classes, in the order of probabilities.
    """

    run_: Path
    classes_: NDArray[np.str_]

    def __init__(self, **flags: Any) -> None:
        _refuse(flags, _OF_ROWS, "fit takes the rows: fit(rows, validation=..., test=...)")
        _refuse(flags, ("sweep", "compare", "tune", "trials", "dry_run"), "it is for train.py")
        self._words = _to_words(flags)
        check_command_line([*self._words, _STAND_IN], **_PROGRAM)
        self._asking = {name: flags[name] for name in _SHARED if name in flags}

    @classmethod
    def load(cls, run: str | os.PathLike[str], **flags: Any) -> Self:
        """A finished run, of one model or of folds; `flags` are those of evaluate.py for all that it is asked."""
        found = cls()
        found._asking = flags
        found._open(Path(run))
        return found

    def fit(self, rows: Any, validation: Any = None, test: Any = None) -> Self:
        """Train on labelled rows, as train.py does with the same flags; returns this object.

        Args:
            validation: rows that choose the best epoch; by default a part of `rows` does (`val_ratio`).
            test: rows that are judged once, at the end, and choose nothing.
        """
        with borrow_process():
            # Take seconds, which neither an import nor a typing error costs.
            from training.experiments.cross_validation import cross_validate
            from training.experiments.training import train
            from training.runs.claim import find_run_path

            flags = self._settle({"data": rows, "val_data": validation, "test_data": test})
            (train if flags.training.folds is None else cross_validate)(flags)
            gc.collect()  # a trainer refers to itself
            self._open(find_run_path(flags))
        path = RunFolder(self.run_).quarantine_file
        if path.is_file() and len(path.read_bytes().splitlines()) > 1:
            logger.warning("Some rows were faulty; %s says which, and what was done about each.", path)
        return self

    def predict(self, rows: Any, **flags: Any) -> NDArray[Any] | list[list[str]]:
        """The answers, in the rows' order: (N,) names of classes, or numbers; of several labels a list of names each.

        Rows need no labels. `flags` are those of evaluate.py, as per_device_eval_batch_size.
        """
        from evaluation.scores.thresholds import answer_rows

        ensemble, _, result = self._ask(rows, flags)
        answers = answer_rows(result.outputs["full"], result.labels, ensemble.thresholds())
        if ensemble.first.config.task == "multi_label":
            return [self.classes_[row > 0].tolist() for row in answers]
        return answers if ensemble.first.config.task == "regression" else self.classes_[answers]

    def predict_proba(self, rows: Any, **flags: Any) -> NDArray[np.float64]:
        """The probabilities of the classes, (N, C)."""
        ensemble, _, result = self._ask(rows, flags)
        if ensemble.first.config.task == "regression":
            raise InputError("A regression has no probabilities; predict gives its numbers.")
        return result.outputs["full"]

    def evaluate(self, rows: Any = None, **flags: Any) -> dict[str, Any]:
        """Figures with 95 % intervals of labelled rows, by default of those that the run itself held out.

        `flags` are those of evaluate.py: `ablation=True`, `contributions=True` or `robustness=True` ask for these, and
        `split` names another part of the run's own rows.
        """
        from evaluation.predict.ensemble import evaluate_rows
        from evaluation.tasks.session import choose_precision, join_ranks
        from evaluation.tasks.split_evaluation import choose_step, judge

        if rows is not None:
            _refuse(flags, ("split",), "it names a part of the run's own rows; leave it or the rows out")
            ensemble, arguments, result = self._ask(rows, flags)
            return judge(ensemble, result, None, arguments)[1]
        with borrow_process():
            ensemble, arguments = self._start(flags)
            split, step = ensemble.choose_split(arguments.split), choose_step(ensemble.first, arguments)
            accelerator = join_ranks(choose_precision(ensemble.first, arguments))
            options = {"batch_size": arguments.per_device_eval_batch_size, "accelerator": accelerator}
            result = evaluate_rows(ensemble.load_rows(split), step, **options)
            return judge(ensemble, result, split, arguments)[1]

    def explain(self, rows: Any, **flags: Any) -> list[Reasons]:
        """Which words and which regions of the picture moved the answer to each row, by the mean of all models."""
        from evaluation.reasons.explaining import explain_rows
        from evaluation.tasks.session import join_ranks

        with borrow_process():
            _, arguments, asked = self._prepare(rows, flags)
            options = {"batch_size": arguments.per_device_eval_batch_size}
            return explain_rows(asked.parts, asked.guids, accelerator=join_ranks("no"), **options)

    def score(self, rows: Any) -> float:
        """The first figure of the task, more of which is better: accuracy, macro-F1, or the negative mean error."""
        from evaluation.scores.scoring import task_of_figures

        figures = self.evaluate(rows)
        task = task_of_figures(figures)
        return task.sign * float(figures[next(iter(task.scores))])

    @property
    def metrics_(self) -> dict[str, Any]:
        """The figures of the training: metrics.json of the run."""
        return read_json(RunFolder(self.run_).metrics_file, dict[str, Any])

    def _settle(self, sources: Mapping[str, Any]) -> Flags:
        """The flags with the rows; `InputError` where they don't go together."""
        from data_utils.sources.arguments import DataArguments
        from data_utils.tables.memory import are_paths, name_rows

        given = {flag: rows for flag, rows in sources.items() if rows is not None}
        cache = DataArguments(data_dir=".", cache_dir=self._asking.get("cache_dir")).cache_path()
        named: dict[str, Any] = {flag: name_rows(rows, cache) for flag, rows in given.items()}
        if not all(map(are_paths, given.values())):
            named["image_dir"] = self._asking.get("image_dir") or os.getcwd()
        return parse_arguments([*self._words, *_to_words(named)], **_PROGRAM)

    def _open(self, run: Path) -> None:
        """Take a run as this object's."""
        import numpy as np

        self.run_ = run.resolve()
        with borrow_process():
            ensemble, _ = self._start({})
        self.classes_ = np.array(ensemble.first.label_names)

    def _start(self, flags: dict[str, Any]) -> tuple[Ensemble, EvaluationArguments]:
        """The run's models, without their weights, and what evaluate.py would be told."""
        from evaluation.arguments import parse_arguments
        from evaluation.tasks.session import open_ensemble

        if not hasattr(self, "run_"):
            raise InputError("There is no model yet: call fit, or take PairClassifier.load(RUN).")
        values = self._asking | flags
        _refuse(values, _OF_FILES, "it is for evaluate.py")
        arguments = parse_arguments([str(self.run_), *_to_words(values, bare_switches=True)])
        return open_ensemble(arguments), arguments

    def _ask(self, rows: Any, flags: dict[str, Any]) -> tuple[Ensemble, EvaluationArguments, EvalResult]:
        """What the models say of rows, and the first two of `_start`."""
        from evaluation.tasks.list_prediction import ask_list
        from evaluation.tasks.session import choose_precision, join_ranks

        with borrow_process():
            ensemble, arguments, asked = self._prepare(rows, flags)
            accelerator = join_ranks(choose_precision(ensemble.first, arguments))
            return ensemble, arguments, ask_list(ensemble, asked, arguments, accelerator)

    def _prepare(self, rows: Any, flags: dict[str, Any]) -> tuple[Ensemble, EvaluationArguments, AskedList]:
        """Rows as the models read them, and what `_start` gives."""
        from data_utils.tables.memory import are_paths, name_rows
        from evaluation.tasks.list_prediction import prepare_list

        own = {} if are_paths(rows) else {"image_dir": os.getcwd()}
        ensemble, arguments = self._start(own | self._asking | flags)
        names = name_rows(rows, ensemble.first.data.cache_path())
        if len(names) > 1:
            raise InputError(f"Got {len(names)} paths; answers are of one at a time.")
        asked = prepare_list(ensemble, names[0], None, data_dir=arguments.data_dir)
        if faults := asked.quarantine.summary():
            logger.warning("%s", faults)
        return ensemble, arguments, asked


def _refuse(flags: Collection[str], names: Collection[str], reason: str) -> None:
    """`InputError` for one of `names` among the flags."""
    for name in flags:
        if name in names:
            raise InputError(f"Got {name} for PairClassifier; {reason}.")


def _to_words(values: Mapping[str, Any], *, bare_switches: bool = False) -> list[str]:
    """Flags as words of a command line; those of None are left out. `bare_switches` as of `FlagParser`."""
    words = []
    for name, value in values.items():
        if value is None:
            continue
        if isinstance(value, list | tuple):
            words += [f"--{name}", *map(str, value)]
        elif bare_switches and isinstance(value, bool):
            words += [f"--{name}"] * value
        else:
            words.append(f"--{name}={json.dumps(value) if isinstance(value, dict) else value}")
    return words
