"""Pages of HTML that stand alone: one file, no request to anywhere, whatever texts and pictures are in them.

What comes from data is escaped by Jinja2 and shown by `visible`; nothing in a page but its own script may run, which a
Content-Security-Policy says to the browser. So no element has a `style` or an `on...` attribute.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from data_utils.page.shown import Shown, visible
from data_utils.system.files import write_text

TEMPLATES = Path(__file__).with_name("templates")


def write_page(path: Path, template: Path, **values: Any) -> None:
    """`render_page` into a file; `InputError` where it can't be written."""
    write_text(path, render_page(template, **values))


def render_page(template: Path, **values: Any) -> str:
    """A template that extends base.html, filled with values; the same ones give the same page.

    Beside base.html and macros.html, templates may include what lies in their own folder.
    """
    return _environment(template.parent).get_template(template.name).render(values)


def write_tables(
    path: Path,
    title: str,
    kind: str,
    tables: Mapping[str, Sequence[Sequence[object]]],
    *,
    sentences: Sequence[str] = (),
    remarks: Sequence[str] = (),
) -> None:
    """A page of tables, by their captions, each with its header first; sentences stand before them, remarks after."""
    values = {"title": title, "kind": kind, "tables": tables, "sentences": sentences, "remarks": remarks}
    write_page(path, TEMPLATES / "tables.html", **values)


@cache
def _environment(folder: Path) -> Environment:
    """With everything escaped, a name that isn't given an error, and every text that is put in made `visible`."""
    loader = ChoiceLoader([FileSystemLoader(folder), FileSystemLoader(TEMPLATES)])
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_show
    )
    style, script = (TEMPLATES.joinpath(name).read_text(encoding="utf-8") for name in ("style.css", "script.js"))
    sources = " ".join(f"{kind}-src '{_hash(text)}';" for kind, text in (("style", style), ("script", script)))
    policy = f"default-src 'none'; img-src data:; {sources} base-uri 'none'; form-action 'none'"
    environment.globals |= {"style": Markup(style), "script": Markup(script), "policy": policy}
    environment.filters["shown"] = Shown
    return environment


def _show(value: Any) -> Any:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _hash(text: str) -> str:
    """As a Content-Security-Policy names a text between <style> or <script> tags."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
