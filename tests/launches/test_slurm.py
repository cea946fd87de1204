"""launchers/train.sbatch without SLURM: stand-ins of its commands, the real launcher and the real training."""

import os
import subprocess
import sys
import time

import pytest
from conftest import ROOT
from launching import launch, list_steps, train_flags

STAND_INS = {
    # One node: runs the command of the step in the background of nothing, as srun does on the node.
    "srun": 'while [ "${1#--}" != "$1" ]; do shift; done\necho $$ > "$STEP"\nSLURM_NODEID=0 exec "$@"\n',
    "scontrol": 'case "$1" in show) echo 127.0.0.1 ;; *) echo "$@" >> "$REQUEUED" ;; esac\n',
    # To all processes of the step, as SLURM does.
    "scancel": (
        'signal() { for child in $(cat /proc/$1/task/*/children); do signal "$child"; done; kill -USR1 "$1"; }\n'
        'signal "$(cat "$STEP")"\n'
    ),
}


@pytest.mark.slow
def test_job_is_requeued_with_a_checkpoint_and_goes_on(tmp_path, monkeypatch):
    launch(["python"], "-m", "data_utils.sample", "--output_dir", str(tmp_path / "pairs"), "--num_pairs", "60")
    for name, text in STAND_INS.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.path.dirname(sys.executable)}:{os.environ['PATH']}")
    settings = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "node1", "SLURM_NNODES": "1", "SLURM_GPUS_ON_NODE": "1"}
    for name, value in (settings | {"STEP": str(tmp_path / "step"), "REQUEUED": str(tmp_path / "requeued")}).items():
        monkeypatch.setenv(name, value)
    run = tmp_path / "run"
    rare = ["--save_strategy", "no", "--eval_strategy", "no", "--dataloader_num_workers", "1", "--disable_tqdm", "true"]
    words = ["bash", "launchers/train.sbatch", *train_flags(tmp_path / "pairs", run, *rare)[1:]]

    with (tmp_path / "log").open("w") as log:
        job = subprocess.Popen([*words, "--max_steps", "100000"], cwd=ROOT, stdout=log, stderr=log)
    limit = time.monotonic() + 120
    while "'loss'" not in (tmp_path / "log").read_text():
        assert job.poll() is None, (tmp_path / "log").read_text()[-3000:]
        assert time.monotonic() < limit
        time.sleep(0.1)
    job.send_signal(10)  # SIGUSR1, to the batch script alone
    assert job.wait(timeout=60) != 0
    assert (tmp_path / "requeued").read_text() == "requeue 4711\n"
    (stopped_at,) = list_steps(run)

    done = subprocess.run([*words, "--max_steps", str(stopped_at + 2)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"checkpoint-{stopped_at}." in done.stderr
    assert (tmp_path / "requeued").read_text() == "requeue 4711\n", "requeued though it was through"
    assert (run / "metrics.json").is_file()
