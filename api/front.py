"""The front door: what happens to every request before a route sees it and after it answered.

Guarantee: every answer has a request id, which stands in the log beside what went wrong; a body above the limit is
refused before it's read to its end; an unexpected exception becomes a problem that tells nothing of the inside.
"""

from __future__ import annotations

import logging
import re
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import Problem, Refused, problem_response

log = logging.getLogger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # An artifact or the docs, opened in a browser, may run nothing.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}


class FrontDoor:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, *, max_body_bytes: int) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = _request_id(headers.get("x-request-id"))
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        async def answer(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                outgoing = MutableHeaders(scope=message)
                outgoing["X-Request-ID"] = request_id
                for name, value in _HEADERS.items():
                    outgoing.setdefault(name, value)
            await send(message)

        try:
            length = headers.get("content-length", "0")
            if not length.isdecimal() or int(length) > self._max_body_bytes:
                refused = problem_response(Problem.TOO_LARGE, self._too_large(), request_id=request_id)
                await refused(scope, receive, answer)
                return
            await self._app(scope, self._counting(receive), answer)
        except ClientDisconnect:
            log.info("request %s: the client went away", request_id)
        except Exception:
            # The outermost place of a request: the process goes on serving others.
            log.exception("request %s: %s %s failed", request_id, scope["method"], scope["path"])
            if started:
                raise
            detail = f"this is our fault; the server's log has more under {request_id}"
            await problem_response(Problem.INTERNAL, detail, request_id=request_id)(scope, receive, answer)

    def _counting(self, receive: Receive) -> Receive:
        """``receive`` that refuses a body which grows too large, whatever its header said."""
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._max_body_bytes:
                raise Refused(Problem.TOO_LARGE, self._too_large())
            return message

        return counted

    def _too_large(self) -> str:
        return f"a request may have {self._max_body_bytes:,} bytes; put data into files and name them in the spec"


def _request_id(given: str | None) -> str:
    """The caller's id when it is harmless in a log, else a new one."""
    return given if given is not None and _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
