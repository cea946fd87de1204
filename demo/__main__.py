"""A page to try runs on: `python -m demo RUN [RUN ...]`, see `--help` and docs/demo.md."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from data_utils.console.screen import show
from demo.arguments import parse_arguments
from run_files.run_folder import RunFolder
from training.launch.console import exit_on_user_error, set_up_libraries, set_up_logging


def main(argv: Sequence[str] | None = None) -> None:
    """Serve the page until the program is told to end; a mistake of the user's ends it with one line and code 2."""
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    set_up_logging()
    with exit_on_user_error(), tempfile.TemporaryDirectory(prefix="demo-") as name:
        arguments = parse_arguments(sys.argv[1:] if argv is None else argv)
        for run in arguments.runs:
            RunFolder(run).check_config()
        folder = Path(name).resolve()
        set_up_gradio(folder)
        # Take seconds, which neither --help nor a typing error costs.
        from demo.answers import serve_runs
        from demo.examples import find_examples
        from demo.page import Page, launch

        set_up_libraries()
        runs = serve_runs(arguments)
        examples = find_examples(runs[0].ensemble, arguments.examples)
        blocks = Page(runs, arguments, folder, examples).build()
        show(f"The page is at {launch(blocks, arguments, folder)} until you press Ctrl-C.")
        wait_for_end()
        blocks.close(verbose=False)


def set_up_gradio(folder: Path) -> None:
    """gradio's own settings, before it is imported: all files in one folder, nothing sent, nothing else served."""
    for setting in [each for each in os.environ if each.startswith("GRADIO_") and each != "GRADIO_ROOT_PATH"]:
        del os.environ[setting]
    os.environ["no_proxy"] = "*"  # it asks itself once, and nobody else
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    os.environ["GRADIO_EXAMPLES_CACHE"] = str(folder / "examples")
    os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] = "100"  # how long each request took is kept in memory


def wait_for_end() -> None:
    """Until Ctrl-C, or what ends a container."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while True:
            signal.pause()
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()
