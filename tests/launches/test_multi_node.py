"""Two nodes, each in a network namespace of its own, one rank on each: with and without shared files, and cut off."""

from __future__ import annotations

import shutil

import pytest
from conftest import ROOT
from launches.network import ADDRESSES, PORT, two_nodes, wait_until_ended
from launching import load_weights, logged_losses, needs_compiler, train_flags, wait_for

import train

PARTS = ("accelerate_configs", "data_utils", "evaluation", "modeling", "run_files", "training", "train.py")
# train.py's flags that give one process the rows of two.
BATCH = {1: ("--per_device_train_batch_size", "8"), 2: ("--per_device_train_batch_size", "4")}
STEPS = ["--max_steps", "4", *BATCH[2], "--save_strategy", "steps", "--save_steps", "2"]
STEPS += ["--eval_strategy", "steps", "--eval_steps", "2"]
TIMEOUT = 15  # seconds until a rank gives up the others
CLEAR = "Go on with the same command and --resume_from_checkpoint latest."


@pytest.fixture(scope="module")
def network():
    with two_nodes() as nodes:
        yield nodes


@pytest.fixture(autouse=True)
def _clean_up(network):
    yield
    network.kill()
    network.connect()


@pytest.fixture(scope="module")
def losses(sample, tmp_path_factory):
    """Losses of one process, by update."""
    run = tmp_path_factory.mktemp("alone") / "run"
    train.main(train_flags(sample, run, "--max_steps", "4", *BATCH[1])[1:])
    figures = logged_losses(run)
    assert len(set(figures.values())) == 4
    return figures


def by_torchrun(node):
    words = ["--nnodes", "2", "--node_rank", str(node), "--nproc_per_node", "1"]
    return ["torchrun", *words, "--master_addr", ADDRESSES[0], "--master_port", str(PORT)]


def by_accelerate(node, config="multi_node", *flags):
    words = ["--config_file", f"accelerate_configs/{config}.yaml", "--num_machines", "2", "--num_processes", "2"]
    address = ["--main_process_ip", ADDRESSES[0], "--main_process_port", str(PORT)]
    return ["accelerate", "launch", *words, "--machine_rank", str(node), *address, *flags]


def start_both(network, folder, commands, cwds=(ROOT, ROOT)):
    logs = [folder / f"node{node}.log" for node in range(2)]
    started = [network.start(node, command, cwd=cwds[node], log=logs[node]) for node, command in enumerate(commands)]
    return started, logs


def run_both(network, folder, commands, cwds=(ROOT, ROOT), timeout=600):
    """What each node printed, after both have ended well."""
    started, logs = start_both(network, folder, commands, cwds)
    codes = [process.wait(timeout) for process in started]
    screens = [log.read_text(errors="replace") for log in logs]
    assert codes == [0, 0], screens[0][-3000:] + screens[1][-3000:]
    return screens


def make_node(folder, sample):
    """A working copy of the program and a copy of the data, as another machine has them."""
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        (folder / "program").mkdir(parents=True, exist_ok=True)
        copy(ROOT / part, folder / "program" / part)
    shutil.copytree(sample, folder / "pairs", copy_function=shutil.copyfile)  # with times of their own


@pytest.mark.parametrize(
    "config", ["multi_node", pytest.param("multi_node_zero3", marks=[needs_compiler, pytest.mark.slow])]
)
def test_nodes_without_shared_files_train_as_one_process_and_resume(network, sample, losses, tmp_path, config):
    folders, commands = [tmp_path / "node0", tmp_path / "node1"], []
    for node, folder in enumerate(folders):
        make_node(folder, sample)
        commands.append([*by_accelerate(node, config), *train_flags(folder / "pairs", folder / "run", *STEPS)])
    programs = [folder / "program" for folder in folders]
    screens = run_both(network, tmp_path, commands, cwds=programs)
    assert [screen.count("pairs for training") for screen in screens] == [1, 0]
    for folder in folders:
        assert logged_losses(folder / "run") == pytest.approx(losses, abs=1e-5)
        assert (folder / "run" / "checkpoints" / "checkpoint-4" / "model.safetensors").is_file()
        shutil.rmtree(folder / "run" / "checkpoints" / "checkpoint-4")
    screens = run_both(
        network, tmp_path, [[*command, "--resume_from_checkpoint", "latest"] for command in commands], cwds=programs
    )
    assert "checkpoint-2." in screens[0]
    for folder in folders:
        assert logged_losses(folder / "run") == pytest.approx(losses, abs=1e-5)
    first, second = (load_weights(folder / "run") for folder in folders)
    assert all(value.equal(second[name]) for name, value in first.items())


@pytest.mark.slow
@needs_compiler
def test_zero3_by_hostfile_on_two_nodes_saves_whole_weights_and_resumes(network, sample, losses, tmp_path, monkeypatch):
    monkeypatch.setenv("DS_ENV_FILE", str(tmp_path / "environment"))  # accelerate writes it, by default to this folder
    hosts, run = tmp_path / "hostfile", tmp_path / "run"
    hosts.write_text("".join(f"{address} slots=1\n" for address in ADDRESSES))
    flags = ["--deepspeed_multinode_launcher", "nossh", "--deepspeed_hostfile", str(hosts)]
    commands = [[*by_accelerate(n, "multi_node_zero3", *flags), *train_flags(sample, run, *STEPS)] for n in range(2)]
    run_both(network, tmp_path, commands)
    assert logged_losses(run) == pytest.approx(losses, abs=1e-5)
    assert all(value.numel() for value in load_weights(run).values())
    shutil.rmtree(run / "checkpoints" / "checkpoint-4")
    screens = run_both(network, tmp_path, [[*command, "--resume_from_checkpoint", "latest"] for command in commands])
    assert "checkpoint-2." in screens[0]
    assert logged_losses(run) == pytest.approx(losses, abs=1e-5)
    assert len(list(run.glob("checkpoints/checkpoint-4/global_step4/*optim_states.pt"))) == 2, "nothing was sharded"


@pytest.mark.parametrize("by", [by_torchrun, pytest.param(by_accelerate, marks=pytest.mark.slow)])
def test_a_node_cut_off_ends_both_with_one_clear_line_and_is_resumed(network, sample, tmp_path, by):
    """On shared files, of which the nodes build the cache once."""
    run = tmp_path / "run"
    shutil.copytree(sample, tmp_path / "pairs")
    flags = train_flags(tmp_path / "pairs", run, *BATCH[2], "--ddp_timeout", str(TIMEOUT), "--disable_tqdm", "true")
    flags += ["--save_strategy", "steps", "--eval_strategy", "steps", "--save_steps", "5", "--eval_steps", "5"]
    endless = [[*by(node), *flags, "--max_steps", "100000"] for node in range(2)]
    started, logs = start_both(network, tmp_path, endless)
    assert wait_for(lambda: any(run.glob("checkpoints/checkpoint-*[05]")), started[0]), logs[0].read_text()[-3000:]
    network.disconnect()
    wait_until_ended(network, timeout=TIMEOUT + 30)
    assert [process.wait() for process in started] == [1, 1]
    assert sum(log.read_text(errors="replace").count("Decoding pictures: ") for log in logs) == 1
    for node, log in enumerate(logs):
        screen = log.read_text(errors="replace")
        lines = [line for line in screen.splitlines() if line.startswith("error")]
        assert len(lines) == 1, screen[-3000:]
        assert lines[0].startswith("error: " if node == 0 else "error (rank 1): ")
        assert lines[0].endswith(CLEAR)
        assert "RuntimeError" not in screen

    network.connect()
    newest = max(int(path.name.split("-")[1]) for path in run.glob("checkpoints/checkpoint-*[05]"))
    resume = ["--max_steps", str(newest + 5), "--resume_from_checkpoint", "latest"]
    screens = run_both(network, tmp_path, [[*by(node), *flags, *resume] for node in range(2)])
    assert f"checkpoint-{newest}." in screens[0]
    assert max(logged_losses(run)) == newest + 5
    assert (run / "metrics.json").is_file()
