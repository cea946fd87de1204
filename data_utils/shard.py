"""Writes shards with the pictures inside: `python -m data_utils.shard --data_dir data/project5 --output_dir shards`."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from data_utils.console.screen import show, start_logging
from data_utils.shards.arguments import parse_arguments
from data_utils.system.home import ensure_home
from data_utils.system.refusals import report_error


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code (2 after a mistake of the user)."""
    start_logging()
    ensure_home()
    logging.getLogger("data_utils").setLevel(logging.INFO)
    try:
        args, data = parse_arguments(argv)
        from data_utils.shards.job import write_shards  # takes seconds, so after what is judged without it

        manifest = write_shards(args, data)
    except Exception as error:
        return report_error(error)
    for part, shards in manifest["parts"].items():
        size = sum(shard["bytes"] for shard in shards)
        show(f"{part}: {sum(shard['rows'] for shard in shards)} rows in {len(shards)} shards, {size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
