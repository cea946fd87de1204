"""Adds lightly changed copies of the rows that a model misjudges.

    python -m data_utils.augment --data_dir data/project5 --predictions runs/folds
    python -m data_utils.augment --data_dir data/project5 --undo

The rows are those that models judged without having seen them (`train.py --folds 5`), and a copy goes where its parent
goes (`data_utils.splits.groups.group_ids`): so no copy of a validation row is ever trained on.
"""

from __future__ import annotations

from collections.abc import Sequence

from data_utils.augment.arguments import AugmentArguments
from data_utils.console.command_line import FlagParser
from data_utils.console.screen import start_logging
from data_utils.system.home import ensure_home
from data_utils.system.refusals import report_error


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code (2 after a mistake of the user)."""
    start_logging()
    ensure_home()
    parser = FlagParser(AugmentArguments, description="Add changed copies of the rows that a model misjudges.")
    try:
        args = AugmentArguments(**parser.parse(argv))
        from data_utils.augment.job import augment, take_away  # takes seconds, so after the flags are judged

        take_away(args) if args.undo else augment(args)
    except Exception as error:
        return report_error(error)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
