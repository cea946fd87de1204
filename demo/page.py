"""The page, by gradio: one pair, many pairs, and the two functions of its HTTP interface."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from starlette.middleware import Middleware

from data_utils.console.screen import printable
from data_utils.page.render import render_page
from data_utils.page.shown import encode_thumbnail
from data_utils.system.files import write_bytes
from demo.answers import Answers, Pair, ServedRun, describe_fault, refuse_unreadable
from demo.arguments import DemoArguments
from demo.batch import answer_csv, check_text
from demo.guard import Guard
from evaluation.reasons.overlay import draw_regions
from modeling.errors import InputError, check_choice
from run_files.explanations import Reasons

_LOOK = Path(__file__).parent / "look"
_SUFFIXES = [".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"]
_FONTS = ("system-ui", "sans-serif")
_SECONDS_KEPT = 600  # an uploaded file, see `Guard`
_SIDE = 224  # pixels of a picture that is shown
_QUEUE = 200  # visitors who wait; others are told to come again
_UNKNOWN = "From which confidence on it should answer is not known: python evaluate.py {run} --abstain 0.8 learns it."
_SHARES = {"shapley_text": "text", "shapley_image": "picture", "synergy": "synergy"}
# What a JSON with a text may have beside it; a character may be written as two escapes.
_BESIDE, _PER_CHARACTER = 65_536, 12

Found = tuple[ServedRun, Answers, Reasons | None]


class Page:
    """What visitors ask, of runs that are in memory.

    Args:
        folder: for the files that visitors get.
        examples: that are offered.
    """

    def __init__(
        self, runs: Sequence[ServedRun], arguments: DemoArguments, folder: Path, examples: Sequence[Pair]
    ) -> None:
        self._runs = {run.name: run for run in runs}
        self._arguments, self._folder, self._examples = arguments, folder, examples

    def ask(self, picture: bytes | None, text: str | None, why: bool) -> list[Found]:
        """Each run's answer to a pair, with reasons where asked for `why`; `InputError` for a pair that isn't taken."""
        text = (text or "").encode("utf-8", "replace").decode()  # JSON may hold halves of characters
        if not text.strip() and not picture:
            raise InputError("Give a text, or a picture, or both.")
        check_text(text, self._arguments, "The text")
        pair, found = Pair(text or None, picture or None), []
        for run in self._runs.values():
            answers = run.ask([pair])
            refuse_unreadable(answers.faults[0])
            found.append((run, answers, run.explain(pair) if why else None))
        return found

    def show(self, picture: bytes | None, text: str | None, why: bool = False) -> str:
        """For the page: HTML with an answer, or why there is none."""
        try:
            cards = [_card(*found) for found in self.ask(picture, text, why)]
            return render_page(_LOOK / "answers.html", refusal=None, cards=cards)
        except InputError as error:
            return _refusal(error)

    def tell(self, picture: bytes | None, text: str | None, why: bool = False) -> list[dict[str, Any]]:
        """For programs: the answers as JSON."""
        try:
            return [
                run.to_dict(answers, 0) | ({} if reasons is None else {"reasons": asdict(reasons)})
                for run, answers, reasons in self.ask(picture, text, why)
            ]
        except InputError as error:
            raise _to_gradio(error) from error

    def show_file(self, content: bytes | None, name: str) -> tuple[gr.File, str]:
        """For the page: a CSV file with an answer to each row of one, or why there is none."""
        try:
            return gr.File(self._answer_file(content, name), visible=True), ""
        except InputError as error:
            return gr.File(None, visible=False), _refusal(error)

    def tell_file(self, content: bytes | None, name: str | None = None) -> str:
        """For programs: the same file, by default of the first run."""
        try:
            return self._answer_file(content, name)
        except InputError as error:
            raise _to_gradio(error) from error

    def _answer_file(self, content: bytes | None, name: str | None) -> str:
        if content is None:
            raise InputError("Give a CSV file.")
        check_choice("the run", name or next(iter(self._runs)), self._runs)
        answered = answer_csv(self._runs[name or next(iter(self._runs))], content, self._arguments)
        path = self._folder / secrets.token_hex(16) / "answers.csv"
        write_bytes(path, answered)
        return str(path)

    def pick(self, number: int) -> tuple[str | None, str]:
        """An example into the fields."""
        text, picture = self._examples[number]
        path = self._folder / "examples" / f"example-{number + 1}"
        if picture is not None:
            write_bytes(path, picture)
        return None if picture is None else str(path), text or ""

    def build(self) -> gr.Blocks:
        """The page, which `launch` serves."""
        with gr.Blocks(title="Text and picture", analytics_enabled=False, delete_cache=(60, _SECONDS_KEPT)) as blocks:
            gr.HTML(render_page(_LOOK / "head.html", runs=list(self._runs.values())))
            with gr.Tab("One pair"):
                self._build_one()
            with gr.Tab("Many pairs"):
                self._build_many()
        return blocks

    def _build_one(self) -> None:
        with gr.Row():
            with gr.Column(min_width=280):
                size = f"up to {self._arguments.max_upload_mb:g} MB"
                picture = gr.File(label=f"Picture ({size})", type="binary", file_types=_SUFFIXES, height=140)
                text = gr.Textbox(label="Text", lines=3, max_lines=12, max_length=self._arguments.max_text_length)
                why = gr.Checkbox(label="Show the words and regions that moved the answer (takes longer)")
                button = gr.Button("Answer", variant="primary")
            with gr.Column(min_width=280, scale=2):
                shown = gr.HTML()
        asking: dict[str, Any] = {"inputs": [picture, text, why], "concurrency_id": "pair", "concurrency_limit": 4}
        latest: dict[str, Any] = {"outputs": shown, "api_visibility": "private", "trigger_mode": "always_last"}
        gr.on([button.click, picture.upload, text.submit, why.input], self.show, **latest, **asking)
        told = gr.JSON(visible=False)
        gr.Button(visible=False).click(self.tell, outputs=told, api_name="answer", **asking)
        if self._examples:
            samples = [[pair.text or ""] for pair in self._examples]
            offered = gr.Dataset(
                label="Examples from the data that the run held out",
                components=[gr.Textbox(visible=False)],
                samples=samples,
                type="index",
            )
            picked = offered.click(self.pick, offered, [picture, text], api_visibility="private")
            picked.then(self.show, **latest, **asking)

    def _build_many(self) -> None:
        names = list(self._runs)
        gr.Markdown(
            f"A CSV file with a column `text`, or `image` (pictures in base64), or both; at most "
            f"{self._arguments.max_rows:,} rows. The file that comes back has an answer for each row, in its order."
        )
        run = gr.Dropdown(names, value=names[0], label="Run", visible=len(names) > 1)
        file = gr.File(label="CSV file", type="binary", file_types=[".csv"], height=140)
        button = gr.Button("Answer all", variant="primary")
        answers = gr.File(label="Answers", interactive=False, visible=False)
        refused = gr.HTML()
        asking: dict[str, Any] = {"inputs": [file, run], "concurrency_id": "file", "concurrency_limit": 1}
        button.click(self.show_file, outputs=[answers, refused], api_visibility="private", **asking)
        gr.Button(visible=False).click(self.tell_file, outputs=answers, api_name="answer_file", **asking)


def launch(blocks: gr.Blocks, arguments: DemoArguments, folder: Path) -> str:
    """Serve the page; returns its address. `InputError` where the port can't be had."""
    max_upload = int(arguments.max_upload_mb * 1e6)
    limits = {"max_upload": max_upload + _BESIDE, "max_body": _PER_CHARACTER * arguments.max_text_length + _BESIDE}
    blocks.queue(max_size=_QUEUE, default_concurrency_limit=4)
    try:
        _, address, _ = blocks.launch(
            server_name=arguments.server_name,
            server_port=arguments.server_port or None,
            app_kwargs={"middleware": [Middleware(Guard, folder=folder, **limits)]},
            max_file_size=max_upload,
            theme=gr.themes.Default(primary_hue="blue", font=_FONTS, font_mono=("ui-monospace", "monospace")).set(
                button_primary_background_fill="*primary_700",
                button_primary_background_fill_hover="*primary_800",
                button_primary_background_fill_dark="*primary_700",
                button_primary_background_fill_hover_dark="*primary_800",
            ),
            css_paths=_LOOK / "style.css",
            footer_links=[],
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            enable_monitoring=False,
            run_history=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            state_session_capacity=_QUEUE,
        )
    except OSError as error:
        place = f"{arguments.server_name}, port {arguments.server_port}"
        raise InputError(f"Nothing can be served at {place}; name another by --server_port.") from error
    return address


def _card(run: ServedRun, answers: Answers, reasons: Reasons | None) -> dict[str, Any]:
    said, notes = run.to_dict(answers, 0), list(map(describe_fault, answers.faults[0]))
    if run.task == "single_label" and run.abstention is None:
        notes.append(_UNKNOWN.format(run=run.ensemble.folder.path))
    shares = [(name, said[key]) for key, name in _SHARES.items() if key in said]
    pixels = answers.pictures[0]
    picture, caption = None if pixels is None else encode_thumbnail(pixels, _SIDE), "The picture as the model gets it"
    if pixels is not None and reasons is not None and reasons.regions is not None:
        picture = encode_thumbnail(draw_regions(np.moveaxis(pixels, 0, 2), reasons.regions), _SIDE)
        caption = "Orange regions speak for the answer, blue ones against it"
    pieces = () if reasons is None else reasons.pieces()
    words = [(piece, effect, abs(share)) for piece, effect, share in pieces]
    return {"said": said, "shares": shares, "notes": notes, "words": words, "picture": picture, "caption": caption}


def _refusal(error: InputError) -> str:
    return render_page(_LOOK / "answers.html", refusal=printable(error), cards=[])


def _to_gradio(error: InputError) -> gr.Error:
    """gradio shows the message as HTML, and as it is to programs."""
    return gr.Error(printable(error), print_exception=False)
