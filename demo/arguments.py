"""Flags of the page; nothing heavy is imported for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import ClassVar, Literal

from data_utils.console.command_line import FlagParser, flag
from modeling.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ServerFlags:
    group: ClassVar[str] = "server"

    server_name: str = flag("127.0.0.1", "The address that is listened at; 0.0.0.0 is all of this machine's.")
    server_port: int = flag(7860, "The port.")


@dataclass(frozen=True, kw_only=True)
class LimitFlags:
    group: ClassVar[str] = "limits"

    max_upload_mb: float = flag(10.0, "Largest file that is taken, in megabytes.")
    max_image_pixels: int = flag(50_000_000, "Most pixels of a picture; a JPEG of more is decoded at 1/2, 1/4 or 1/8.")
    max_text_length: int = flag(100_000, "Most characters of a text.")
    max_rows: int = flag(1000, "Most rows of a CSV file.")


@dataclass(frozen=True, kw_only=True)
class RunFlags:
    group: ClassVar[str] = "runs"

    examples: int = flag(6, "Pairs of the first run's validation part that are offered to be tried; 0 for none.")
    data_dir: str | None = flag(None, "Where the data of the examples lie now (default: where they were in training).")
    mixed_precision: Literal["no", "bf16", "fp16"] | None = flag(None, "Default: as in training.")
    trust_remote_code: bool = flag(False, "Run program code that a run's tokenizer brings along.")


@dataclass(frozen=True, kw_only=True)
class DemoArguments(ServerFlags, LimitFlags, RunFlags):
    """What `python -m demo` is asked for."""

    runs: list[str]

    def __post_init__(self) -> None:
        for name in ("max_upload_mb", "max_image_pixels", "max_text_length", "max_rows"):
            if not getattr(self, name) > 0:
                raise InputError(f"Got --{name} {getattr(self, name)}; it must be above 0.")
        if not 0 <= self.server_port < 2**16:
            raise InputError(f"Got --server_port {self.server_port}; a port is a number up to 65535, 0 any free one.")
        if self.examples < 0:
            raise InputError(f"Got --examples {self.examples}; it must be 0 or more.")
        if find_spec("gradio") is None:
            raise InputError("The page needs the package gradio: pip install -r requirements-demo.txt.")


def parse_arguments(argv: Sequence[str] | None = None) -> DemoArguments:
    """The command line as `DemoArguments`; `InputError` for what it doesn't allow."""
    parser = FlagParser(
        *(ServerFlags, LimitFlags, RunFlags),
        description="A page on which a run answers pairs of text and picture; of several runs, all side by side.",
        bare_switches=True,
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run folder, as train.py leaves it")
    return DemoArguments(**parser.parse(argv))
