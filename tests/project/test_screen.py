"""What would steer a terminal or fill it: shown harmless and cut, kept as it is in files."""

from __future__ import annotations

import csv
import io
import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data_utils import sample
from data_utils.console import screen
from data_utils.console.screen import printable, printable_lines
from data_utils.console.tables import format_table
from modeling.errors import InputError
from run_files.predictions_csv import write_predictions_csv
from run_files.run_folder import RunFolder
from training.launch.console import exit_on_user_error, set_up_logging

STEERING = "\x1b[2J\x1b]0;title\x07\r\u202eevil\x9b1m"
SHOWN = "\\x1b[2J\\x1b]0;title\\x07\\r\\u202eevil\\x9b1m"


def is_harmless(text: str) -> bool:
    return all(character.isprintable() or character in "\n\t\xa0\xad\u202f" for character in text)


@pytest.fixture(autouse=True)
def record_factory() -> object:
    factory = logging.getLogRecordFactory()
    yield
    logging.setLogRecordFactory(factory)


@pytest.mark.parametrize("number", [*range(0x100), 0x061C, *range(0x200E, 0x2030), *range(0x2066, 0x206A), 0xDC80])
def test_every_character_is_harmless_when_shown(number: int) -> None:
    shown = printable(f"a{chr(number)}b")
    assert is_harmless(shown)
    assert shown.encode()  # halves of characters could not be printed at all
    assert (shown == f"a{chr(number)}b") == (chr(number).isprintable() or chr(number) in "\t\xa0\xad\u202f")


def test_plain_text_of_any_script_is_left_alone() -> None:
    text = "naïve «Größe» 日本語 हिन्दी ไทย עברית 🎉 a\u0301\tb"
    assert printable(text) == text


def test_long_text_is_cut_and_says_by_how_much() -> None:
    assert printable("x" * 100_000) == "x" * 2000 + "… (98,000 characters more)"
    assert len(printable("\x1b" * 100_000)) < 2100
    lines = printable_lines("\n" * 100_000).split("\n")
    assert len(lines) < 500
    assert lines[-1] == "… (99,601 lines more)"


def test_error_is_one_harmless_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop, exit_on_user_error():
        raise InputError(f"Got the label {STEERING}\n{'y' * 100_000}; name it.")
    assert stop.value.code == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: Got the label \\x1b[2J")
    assert shown.count("\n") == 1
    assert len(shown) < 2100
    assert is_harmless(shown)


def test_notices_of_all_packages_are_harmless(caplog: pytest.LogCaptureFixture) -> None:
    set_up_logging()
    for name in ("data_utils.prepare.pairs", "transformers.configuration_utils", "PIL"):
        logger = logging.getLogger(name)
        logger.addHandler(caplog.handler)
        logger.warning("the label %s is unknown", STEERING)
        logger.removeHandler(caplog.handler)
    assert caplog.text.count(f"the label {SHOWN} is unknown") >= 3
    assert is_harmless(caplog.text)


@pytest.mark.parametrize("is_read", [True, False])
def test_pipe_that_is_full_or_whose_reader_has_gone_takes_every_line(is_read: bool) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    if not is_read:
        os.close(reader)
    with io.BufferedWriter(screen._LastingFile(writer, "wb")) as stream:
        for _ in range(300):
            stream.write(b"a line of text\n" * 100)
    if is_read:
        os.close(reader)


def test_commands_of_the_data_show_harmless_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / f"a{STEERING}"
    folder.mkdir()
    (folder / "foreign.txt").write_text("x")
    assert sample.main(["--output_dir", str(folder)]) == 2
    shown = capsys.readouterr().err
    assert "\\x1b[2J" in shown
    assert is_harmless(shown)


def test_table_shows_cells_cut_and_harmless_while_files_keep_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    label = f"{STEERING}{'z' * 5000}"
    screen.show(format_table([["class", "F1"], [label, "0.5"]]))
    shown = capsys.readouterr().out
    assert is_harmless(shown)
    assert max(map(len, shown.splitlines())) < 200
    write_predictions_csv(tmp_path / "p.csv", ["g"], [0], np.array([[0.75, 0.25]]), [label, "b"])
    with (tmp_path / "p.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file))[1][1] == label


def test_comparison_of_runs_with_hostile_labels_and_names(
    tmp_path: Path, evaluate_main: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    labels = [f"{STEERING}$\\frac{{", "z" * 5000]
    rng = np.random.default_rng(0)
    for name in (f"a$_{STEERING}", "b"):
        first = rng.uniform(0.1, 0.9, 40)
        probabilities = np.stack([first, 1 - first], axis=1)
        guids = [f"{STEERING}{number}" for number in range(40)]
        path = RunFolder(tmp_path / name).predictions_file
        write_predictions_csv(path, guids, [0, 1] * 20, probabilities, labels)
    evaluate_main("compare", tmp_path / f"a$_{STEERING}", tmp_path / "b", "--output", tmp_path / "out")
    shown = capsys.readouterr().out
    assert "\\x1b[2J" in shown
    assert is_harmless(shown)
    assert (tmp_path / "out" / "comparison.png").stat().st_size > 10_000
