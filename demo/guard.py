"""What the server answers at all: the page, its two functions, and files that visitors uploaded.

gradio has more routes: it fetches what a URL names, serves as a proxy, records runs. None of these is reached here, no
matter what the next version of it adds.
"""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse

from data_utils.system.bounded import parse_json

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]
API = "/gradio_api/"
_DIGITS = 18  # of a request's length
_UPLOAD, _FILE = f"{API}upload", f"{API}file="
_ROUTES = re.compile(
    r"/|/config|/theme\.css|/manifest\.json|/favicon\.ico|/robots\.txt|/(?:assets|static)/.*"
    rf"|{API}(?:info|app_id|login_check|startup-events|theme\.css|cancel|reset|upload|upload_progress|heartbeat/[^/]*"
    r"|queue/(?:join|data)|call/.*|file=.*)"
)
# The page may load and ask nothing elsewhere, whatever is in it; gradio's own scripts are in the page and built there.
_HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        b"img-src 'self' data: blob:; font-src 'self' data:; object-src 'none'; base-uri 'self'; form-action 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


class Guard:
    """A layer around the server (ASGI).

    Args:
        app: the server.
        folder: of the uploaded files; no other file is named by a request.
        max_upload: bytes of an upload.
        max_body: bytes of any other request.
    """

    def __init__(self, app: Any, *, folder: Path, max_upload: int, max_body: int) -> None:
        self._app, self._folder = app, os.path.realpath(folder)
        self._max_upload, self._max_body = max_upload, max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        path, messages, refusal = scope["path"], list[Scope](), self._find_refusal(scope)
        if refusal is None and scope["method"] == "POST" and path != _UPLOAD:
            body = await Request(scope, receive).body()
            messages.append({"type": "http.request", "body": body})
            if not self._names_own_files(body):
                refusal = 403, "A file is named that was not uploaded here, or is here no more; upload it."
        if refusal is not None:
            return await PlainTextResponse(refusal[1], refusal[0])(scope, receive, send)

        async def receive_again() -> Scope:
            return messages.pop() if messages else await receive()

        async def send_with_headers(message: Scope) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        await self._app(scope, receive_again, send_with_headers)

    def _find_refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Status and sentence for a request whose head is enough to refuse it."""
        path, length = scope["path"], dict(scope["headers"]).get(b"content-length", b"")
        limit = self._max_upload if path == _UPLOAD else self._max_body
        is_file = path.startswith(_FILE)
        if scope["type"] != "http" or not _ROUTES.fullmatch(path) or (is_file and not self._is_own(path[len(_FILE) :])):
            return 403, "This page has nothing there."
        if scope["method"] != "POST":
            return None
        if not length.isdigit():
            return 411, "Say how long the request is (Content-Length)."
        return (413, f"At most {limit:,} bytes are taken.") if int(length[:_DIGITS]) > limit else None

    def _is_own(self, path: Any) -> bool:
        """Whether it is that of a file that was uploaded, or made for a visitor."""
        if not isinstance(path, str) or "\0" in path:
            return False
        real = os.path.realpath(path)
        return real.startswith(self._folder + os.sep) and os.path.isfile(real)

    def _names_own_files(self, body: bytes) -> bool:
        """Whether every file that a JSON names is an uploaded one, as gradio fetches those that are URLs.

        They are as good as new, so that they aren't deleted while a visitor uses them.
        """
        try:
            waiting = [parse_json(body or b"{}")]
        except ValueError:
            return False
        while waiting:
            value = waiting.pop()
            if isinstance(value, dict):
                if "path" in value:
                    if not self._is_own(value["path"]):
                        return False
                    os.utime(value["path"])
                waiting += value.values()
            elif isinstance(value, list):
                waiting += value
        return True
