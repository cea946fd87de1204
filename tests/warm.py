"""Starts programs without waiting for their imports: one warm process has loaded the libraries, and forks for each.

The libraries take 12 s to load, for the launcher and for each rank of it. This project's own modules aren't loaded in
the warm process: a forked program imports them as it would in a process of its own. What all share is the order of
sets and the settings that libraries read when they are loaded; a test whose point these are starts a process.

    python tests/warm.py serve ADDRESS PROGRAM       # the warm process; it ends when its standard input does
    PROGRAM [-u] file.py ... | [-u] -m module ...    # in place of python
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

LIBRARIES = (
    "multiprocessing.spawn",  # takes note of the real interpreter, for processes that inherit open files
    *("accelerate.commands.accelerate_cli", "datasets", "evaluate", "fsspec"),
    *("matplotlib.figure", "numpy", "pyarrow.parquet", "scipy.stats", "sklearn.linear_model", "sklearn.metrics"),
    *("torch.distributed.run", "torch.utils.data", "torch.utils.tensorboard", "torch.distributed.fsdp"),
    # The last brings torch's compiler, with which DeepSpeed's engine begins.
    *("PIL.JpegImagePlugin", "pyarrow.csv", "deepspeed", "deepspeed.runtime.zero.muon.muon_optimizer"),
    *("transformers.trainer", "transformers.integrations.deepspeed", "transformers.models.auto.modeling_auto"),
    *("transformers.models.auto.image_processing_auto", "transformers.models.auto.tokenization_auto"),
    *("transformers.models.bert.modeling_bert", "transformers.models.clip.modeling_clip"),
    *("transformers.models.clip.image_processing_pil_clip", "transformers.models.vit.modeling_vit"),
)
STREAMS = 3  # input, output, errors
NETWORK = "/proc/self/ns/net"  # the network namespace of a process


class WarmPython:
    """The warm process of a test session.

    Attributes:
        program: stands for python on a command line.
    """

    def __init__(self, folder: Path) -> None:
        address, self.program = folder / "socket", folder / "python"
        # -S and -E: the client needs the standard library alone, and starts in 30 ms.
        self.program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -SE "{__file__}" run "{address}" "$@"\n')
        self.program.chmod(0o755)
        command = [sys.executable, __file__, "serve", str(address), str(self.program)]
        self._server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder)
        if b"ready\n" not in self._server.stdout:  # behind what libraries say while they load
            raise RuntimeError(f"The warm process ended with {self._server.wait()}.")

    def close(self) -> None:
        """End the warm process."""
        self._server.communicate()


def serve(address: str, program: str) -> Callable[[], object]:
    """Load the libraries, then fork for each request; what it returns is run by the forked process."""
    # Libraries ask for GPUs while they load; by CUDA itself, no process that is forked afterwards could use one.
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    for name in LIBRARIES:
        with contextlib.suppress(Exception):  # what can't be loaded is missed by the program that needs it
            __import__(name)
    gc.freeze()  # no program searches through the libraries' objects for what it can free
    # The project's own modules are compiled once, also where the environment forbids to write beside them.
    sys.pycache_prefix, sys.dont_write_bytecode = str(Path(address).with_name("bytecode")), False
    sys.executable = program  # so launchers start their ranks warm, too
    os.environ["PYTHON_EXEC"] = program
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the processes that wait for the programs
        print("ready", flush=True)
        while listener in select.select([listener, sys.stdin], [], [])[0]:
            connection, _ = listener.accept()
            with connection:
                if os.fork() == 0:
                    listener.close()
                    return _start(connection)
    os._exit(0)


def _start(connection: socket.socket) -> Callable[[], object]:
    """Fork the program that the client asks for. The parent passes on its end, or ends it when the client has gone."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    message, (*streams, network), *_ = socket.recv_fds(connection, 2**20, STREAMS + 1)
    while not message.endswith(b"\n"):
        message += connection.recv(2**20)
    words, folder, environment = json.loads(message)
    program = os.fork()
    if program:
        for number in range(STREAMS):
            os.close(streams[number])
            os.close(number)
        connection.sendall(b"%d\n" % program)
        ended = os.pidfd_open(program)
        if ended not in select.select([ended, connection], [], [])[0]:
            os.kill(program, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(program, 0)[1])
        connection.sendall(b"%d\n" % code)
        os._exit(0)
    connection.close()
    os.setsid()
    if os.fstat(network).st_ino != os.stat(NETWORK).st_ino and ctypes.CDLL(None, use_errno=True).setns(network, 0):
        raise OSError(ctypes.get_errno(), "the client's network can't be entered")
    os.close(network)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment, PYTHON_EXEC=sys.executable)
    return _prepare([word for word in words if word != "-u"] if words[0] == "-u" else words)


def _prepare(words: Sequence[str]) -> Callable[[], object]:
    """What python would do with these words."""
    __import__("numpy").random.seed()  # or all programs would draw the same numbers
    sys.path[1:1] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    if words[0] == "-m":
        sys.argv, sys.path[0] = list(words[1:]), os.getcwd()
        return lambda: runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    sys.argv, sys.path[0] = list(words), str(Path(words[0]).resolve().parent)
    return lambda: runpy.run_path(words[0], run_name="__main__")


def run(address: str, words: Sequence[str]) -> int:
    """Have a program run by the warm process, with this process's streams, folder and environment; its exit code."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        message = json.dumps([list(words), os.getcwd(), dict(os.environ)]).encode() + b"\n"
        sent = socket.send_fds(connection, [message], [*range(STREAMS), os.open(NETWORK, os.O_RDONLY)])
        connection.sendall(message[sent:])
        answers = connection.makefile()
        program = int(answers.readline())
        note = Path(address).with_name(str(os.getpid()))
        note.write_text(str(program))  # for those who look for it below this process

        def pass_on(number: int, _: object) -> None:
            os.kill(program, number)

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, pass_on)
        code = int(answers.readline() or 1)
        note.unlink()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    if sys.argv[1] == "run":
        os._exit(run(sys.argv[2], sys.argv[3:]))
    program = serve(*sys.argv[2:])
    program()
