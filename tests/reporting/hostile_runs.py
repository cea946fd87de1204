"""A run whose data are hostile, without a training: texts with tags, scripts and odd characters, files that are no
pictures, and names that mean something in HTML."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
from evaluating import LABELS, NUM_VAL, save_run, write_pairs

from run_files.explanations import Reasons, Word, explanations_file, write_explanations
from run_files.output import write_json
from run_files.predictions_csv import PredictionTable, read_predictions_csv
from run_files.run_folder import RunFolder

PAYLOADS = (
    "<script>window.hurt = 1</script>",
    "</script><script>window.hurt = 1</script>",
    "<img src=x onerror='window.hurt = 1'>",
    '" onmouseover="window.hurt = 1" x="',
    "</style><style>* { display: none }</style>",
    "<svg onload=window.hurt=1>",
    "<iframe src='https://example.org/'></iframe>",
    "javascript:window.hurt=1",
    "{{ 7 * 7 }}{% include '/etc/passwd' %}",
    "<!-- ",
    "]]><b>",
    "\u202e\u2066 turned \u2069 round",
    "\x00\x07\x1b[31m control",
    "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd",
    "a" * 100_000,
    "\n" * 5000,
)
NO_PICTURES = (
    b"",
    b"<svg onload='window.hurt=1'/>",
    b"\xff\xd8\xff\xe0 cut",
    b"<script>window.hurt = 1</script>",
    b"MZ",
)


def draw_text(rng: random.Random) -> str:
    """A hostile text, other in every draw."""
    return " ".join(rng.choices(PAYLOADS[:-2], k=rng.randint(1, 4))) + rng.choice(("", *PAYLOADS[-2:])) * (
        rng.random() < 0.02
    )


def save_hostile_run(root: Path) -> RunFolder:
    """The folder root/run with its data in root/pairs."""
    (root / "pairs").mkdir()
    data, rng = write_pairs(root / "pairs") / "data", random.Random(1)
    for number, payload in enumerate(PAYLOADS):
        (data / f"p{number}.txt").write_text(f"{payload} word", encoding="utf-8", errors="replace")
    for number, content in enumerate(NO_PICTURES):
        (data / f"p{20 + number}.jpg").write_bytes(content)
    run = save_run(root / "run", root / "pairs")
    labels = np.arange(NUM_VAL) % 3
    shares = np.random.default_rng(0).dirichlet(np.ones(3), NUM_VAL).round(8)
    guids = tuple(f"p{number}" for number in range(NUM_VAL))
    PredictionTable(guids, labels, shares, tuple(LABELS)).write(run.predictions_file)
    table = read_predictions_csv(run.predictions_file)
    entries = [{"loss": 1 / step, "epoch": step / 2, "step": step} for step in range(1, 9)]
    write_json(run.history_file, [*entries, {"eval_loss": 0.5, "eval_accuracy": 0.4, "epoch": 4.0, "step": 8}])
    write_json(run.metrics_file, {"best": {"metric": "accuracy"}})
    reasons = []
    for guid in table.guids:
        text = f"{rng.choice(PAYLOADS[:9])} tells"
        words = (Word(0, len(text) - 6, 0.2), Word(len(text) - 5, len(text), -0.4))
        reasons.append(Reasons(guid, LABELS[0], 0.5, text, words, ((0.1, -0.2), (0.0, 0.3))))
    write_explanations(explanations_file(run.path, "val"), reasons, "val", gradients=None, cost={}, faithfulness={})
    return run
