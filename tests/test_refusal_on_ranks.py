"""What several ranks refuse is said once, by the first of them, however late it comes to it."""

from __future__ import annotations

from pathlib import Path

from conftest import ROOT
from launching import launch

PROGRAM = """
import os, sys, time
sys.path.insert(0, {root!r})
from data_utils.errors import InputError
from training import signals
from training.console import clear_errors

with signals.listen(), clear_errors():
    time.sleep(2 if os.environ["RANK"] == "0" else 0)
    raise InputError("The rows differ; take the others.")
"""


def test_slow_first_rank_is_not_ended_before_it_has_spoken(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(root=str(ROOT)))
    screen = launch(["torchrun"], "--nproc_per_node", "2", "--master_port", "0", str(program), code=1)
    assert screen.count("The rows differ; take the others.") == 1
