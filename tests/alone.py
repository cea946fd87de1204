"""Models that stand alone: run folders of tiny models, and the process that asks them without this project.

python -I tests/alone.py ROWS MODEL...      # one line of JSON per model: what it says of the rows
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def ask(folders: list[Path], rows: list[dict[str, Any]], tmp_path: Path) -> list[dict[str, Any]]:
    """The answers of each folder of a model, from a process outside of the project, without a network."""
    (tmp_path / "empty").mkdir(exist_ok=True)
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    command = [sys.executable, "-I", __file__, str(tmp_path / "rows.json"), *map(str, folders)]
    environment = {name: value for name, value in os.environ.items() if name not in ("HF_HUB_OFFLINE", "PYTHONPATH")}
    environment |= {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(command, cwd=tmp_path / "empty", env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not [line for line in done.stderr.splitlines() if line.strip()], done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def main(rows_file: str, *folders: str) -> None:
    """Print what each model says."""
    import torch
    from transformers import AutoModel, AutoProcessor, pipeline

    def refuse(*_: object) -> None:
        raise OSError("there is no network")

    socket.socket.connect = refuse  # type: ignore[method-assign]
    rows = json.loads(Path(rows_file).read_text())
    for folder in folders:
        pipe = pipeline(model=folder, trust_remote_code=True)
        model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
        batch = processor(text=[row.get("text") for row in rows], images=[row.get("image") for row in rows])
        with torch.no_grad():
            values = model.probabilities(model(**batch).logits)
        most = {} if model.config.task == "regression" else {"top_k": model.config.num_labels}
        answers = {
            "labels": list(model.config.id2label.values()),
            "model": values.tolist(),
            "single": [pipe(**row, **most) if isinstance(row.get("text"), str) else pipe(row, **most) for row in rows],
            "batches": pipe(rows, batch_size=4, **most),
            "answers": pipe(rows),
        }
        print(json.dumps(answers))
    files = [str(getattr(module, "__file__", None)) for module in sys.modules.values()]
    own = [name for name in files if name.startswith(str(ROOT)) and "site-packages" not in name and name != __file__]
    assert own == [], own


if __name__ == "__main__":
    main(*sys.argv[1:])
