"""Checks data before a training: `python -m data_utils.check --data_dir data/project5 --output_dir runs/check`.

Writes check.html, check.json and the rows in question as CSV files. With --fail_on the exit code is 1 where something
is found, for CI.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from data_utils.check.arguments import parse_arguments
from data_utils.console.screen import show, start_logging
from data_utils.system.home import ensure_home
from data_utils.system.refusals import report_error


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code (1 for what --fail_on names, 2 after a mistake of the user)."""
    start_logging()
    ensure_home()
    logging.getLogger("data_utils").setLevel(logging.INFO)
    try:
        args, data = parse_arguments(argv)
        from data_utils.check.job import check_data  # takes seconds, so after what is judged without it

        failure = check_data(args, data)
    except Exception as error:
        return report_error(error)
    if failure:
        show(failure)
    return int(failure is not None)


if __name__ == "__main__":
    raise SystemExit(main())
