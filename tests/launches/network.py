"""Two machines of a cluster on one: network namespaces with a cable between them that can be pulled."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from launching import all_end, warm

ADDRESSES = ("10.213.47.1", "10.213.47.2")
PORT = 29500  # each namespace has ports of its own


class Network:
    """Two nodes, 0 and 1, each with a loopback and one end of the cable."""

    def __init__(self) -> None:
        self.names = [f"node{number}-{os.getpid()}" for number in range(2)]
        self.cards = [f"cable{number}" for number in range(2)]

    def build(self) -> None:
        for name in self.names:
            _ip("netns", "add", name)
        first, second = self.cards
        _ip("link", "add", first, "netns", self.names[0], "type", "veth", "peer", second, "netns", self.names[1])
        for name, card, address in zip(self.names, self.cards, ADDRESSES, strict=True):
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", card)
            _ip("-n", name, "link", "set", "lo", "up")
        self.connect()

    def remove(self) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)

    def disconnect(self) -> None:
        """Pull the cable: what is sent gets lost, and nobody is told."""
        _ip("-n", self.names[0], "link", "set", self.cards[0], "down")

    def connect(self) -> None:
        for name, card in zip(self.names, self.cards, strict=True):
            _ip("-n", name, "link", "set", card, "up")

    def start(
        self, node: int, command: Sequence[str], *, cwd: Path, log: Path, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen:
        """Start a command of the environment's own programs on a node; both streams go to `log`.

        `cwd` comes first on Python's path, before the folder that the tests were started from.
        """
        programs = os.path.dirname(sys.executable)
        environment = os.environ | {"PYTHONPATH": str(cwd)} | dict(env or {})
        environment["GLOO_SOCKET_IFNAME"] = self.cards[node]  # gloo would take the address of the host's name
        environment["PATH"] = f"{programs}{os.pathsep}{os.environ['PATH']}"  # DeepSpeed's launcher and ninja
        words = ["ip", "netns", "exec", self.names[node], *warm(command)]
        options = {"cwd": cwd, "env": environment, "start_new_session": True}
        with log.open("w") as file:
            return subprocess.Popen(words, stdout=file, stderr=file, **options)

    def processes(self) -> list[int]:
        """Ids of what runs on both nodes."""
        found = [subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True) for name in self.names]
        return [int(word) for done in found for word in done.stdout.split()]

    def kill(self) -> None:
        """kill -9 all that runs on both nodes."""
        for process in self.processes():
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


def wait_until_ended(network: Network, timeout: float) -> None:
    """Fail if anything still runs on a node after `timeout` seconds."""
    assert all_end(network.processes(), timeout), f"still running: {network.processes()}"


@contextmanager
def two_nodes() -> Iterator[Network]:
    """The nodes, which are removed afterwards with all that runs on them; skips where they can't be made."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and the program ip (Debian: iproute2)")
    network = Network()
    try:
        try:
            network.build()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
        yield network
    finally:
        network.kill()
        network.remove()


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], capture_output=True, text=True, check=True)
