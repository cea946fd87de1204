"""What wandb (offline), MLflow and trackio keep of their runs below a folder, read from their own files."""

from __future__ import annotations

import json
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml


def read_wandb(logs: Path) -> dict[str, dict[str, Any]]:
    """The runs by their names: group, config, figures (the last of each), and whether they were ended."""
    found = {}
    for path in sorted(logs.glob("wandb/offline-run-*/run-*.wandb")):
        run: dict[str, Any] = {"config": {}, "figures": {}, "ended": False}
        for record in _wandb_records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                found[record.run.display_name] = run | {"group": record.run.run_group}
                run = found[record.run.display_name]
                updates = record.run.config.update
            elif kind == "config":
                updates = record.config.update
            else:
                updates = ()
            run["config"] |= {each.key or "/".join(each.nested_key): json.loads(each.value_json) for each in updates}
            if kind == "history":
                items = record.history.item
                run["figures"] |= {each.key or "/".join(each.nested_key): json.loads(each.value_json) for each in items}
            run["ended"] |= kind == "exit"
    return found


def _wandb_records(path: Path) -> Iterator[Any]:
    """The records of a file: LevelDB's log format in blocks of 32 KiB, behind 7 bytes of its own."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, whole = path.read_bytes(), 7, b""
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:  # too little for a header: the rest of the block is empty
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def read_mlflow(logs: Path) -> dict[str, dict[str, Any]]:
    """The runs by their names: experiment, params, metrics (the last of each), pictures, whether they were ended."""
    found = {}
    for folder in logs.glob("mlruns/*/*/params"):
        run = folder.parent
        meta = yaml.safe_load((run / "meta.yaml").read_text())
        experiment = yaml.safe_load((run.parent / "meta.yaml").read_text())
        found[meta["run_name"]] = {
            "group": experiment["name"],
            "config": {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()},
            "figures": {
                str(path.relative_to(run / "metrics")): float(path.read_text().splitlines()[-1].split()[1])
                for path in (run / "metrics").rglob("*")
                if path.is_file()
            },
            "pictures": [path.name for path in (run / "artifacts").rglob("*.png")],
            "ended": meta["end_time"] is not None,
        }
    return found


def read_trackio(logs: Path) -> dict[str, dict[str, Any]]:
    """The runs by their names: project, config, figures (the last of each)."""
    found: dict[str, dict[str, Any]] = {}
    for path in logs.glob("trackio/*.db"):
        with sqlite3.connect(path) as base:
            for name, config in base.execute("SELECT run_name, config FROM configs"):
                found[name] = {"group": path.stem, "config": json.loads(config), "figures": {}}
            for name, metrics in base.execute("SELECT run_name, metrics FROM metrics ORDER BY id"):
                found[name]["figures"] |= json.loads(metrics)
    return found
