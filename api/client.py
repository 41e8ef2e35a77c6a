"""The API for Python programs and for the command line: one method for each route, answers as the API's own classes.

Guarantee: what goes wrong is one of two exceptions, ``ApiError`` for an answer that is no success and
``ApiUnreachable`` for none; neither holds the key. It needs httpx and pydantic, and imports nothing that computes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from api.schemas import (
    ArtifactsView,
    EventsView,
    FaultView,
    HealthView,
    MetricsView,
    ProblemView,
    RunDetail,
    RunPage,
    RunView,
    TableView,
)

TIMEOUT_SECONDS = 30.0
_MAX_ERROR_CHARACTERS = 200
_LOOPBACK = re.compile(r"https?://(127\.\d+\.\d+\.\d+|localhost|\[::1\])(:|/|$)")

Answer = TypeVar("Answer", bound=BaseModel)


class ApiError(RuntimeError):
    """The API refused; ``status`` and ``detail`` say why."""

    def __init__(
        self, status: int, detail: str, *, faults: list[FaultView] | None = None, request_id: str = ""
    ) -> None:
        self.status = status
        self.detail = detail
        self.faults = faults or []
        self.request_id = request_id
        super().__init__(detail)


class ApiUnreachable(ConnectionError):  # noqa: N818 (a state of things)
    """No API answered at the address."""


class Client:
    """A connection to one API with one key. Not safe for threads; close it, or use it in a ``with``."""

    def __init__(
        self,
        url: str,
        key: str | None,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            self._http = httpx.Client(
                base_url=f"{self.url}/v1",
                headers=headers,
                timeout=timeout_seconds,
                transport=transport,
                # The key must not follow a redirect to somebody else's host.
                follow_redirects=False,
                # A proxy of the environment can't reach this machine's own address.
                trust_env=not _LOOPBACK.match(self.url),
            )
        except (httpx.InvalidURL, UnicodeEncodeError) as error:
            raise ApiUnreachable(f"{url} and its key are no address and key of an API; check DISTOX_API_URL") from error

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def health(self) -> HealthView:
        """Whether the API and its store answer.

        Raises:
            ApiError: the store doesn't.
            ApiUnreachable: the API doesn't.
        """
        return self._get("/health", HealthView)

    def submit(self, spec: Mapping[str, Any] | str, *, idempotency_key: str | None = None) -> RunDetail:
        """Submit a spec as data, or as a text of YAML or JSON; sent again with the same key, it gives the same run.

        Raises:
            ApiError: the spec is wrong (status 422, with ``faults``) or may not be submitted.
            ApiUnreachable: no API answered; with a key, simply try again.
        """
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key is not None else {}
        if isinstance(spec, str):
            headers["Content-Type"] = "application/yaml"
            return _read(self._send("POST", "/runs", content=spec.encode(), headers=headers), RunDetail)
        return _read(self._send("POST", "/runs", json=dict(spec), headers=headers), RunDetail)

    def page(self, *, cursor: str | None = None, limit: int = 50, **filters: str | bool | None) -> RunPage:
        """One page of runs, newest first; filters as the route's: state, kind, name, owner, parent, top_level."""
        given = {key: value for key, value in filters.items() if value is not None}
        parameters: dict[str, Any] = {"limit": limit, **given}
        return self._get("/runs", RunPage, **(parameters if cursor is None else {**parameters, "cursor": cursor}))

    def runs(self, *, limit: int, **filters: str | bool | None) -> Iterator[RunView]:
        """At most ``limit`` runs, newest first, page by page."""
        cursor: str | None = None
        while limit > 0:
            page = self.page(cursor=cursor, limit=min(limit, 200), **filters)
            yield from page.runs
            limit -= len(page.runs)
            if (cursor := page.next_cursor) is None:
                return

    def run(self, run_id: str) -> RunDetail:
        """One run; ``ApiError`` with status 404 when there is none."""
        return self._get(f"/runs/{quote(run_id, safe='')}", RunDetail)

    def cancel(self, run_id: str) -> RunDetail:
        """Ask a run to end; ``ApiError`` with status 409 when it has succeeded or failed already."""
        return _read(self._send("POST", f"/runs/{quote(run_id, safe='')}/cancel"), RunDetail)

    def events(self, run_id: str, *, after: int = 0) -> EventsView:
        """What happened to a run after the event ``after``."""
        return self._get(f"/runs/{quote(run_id, safe='')}/events", EventsView, after=after)

    def metrics(self, run_id: str, *, name: str | None = None, max_points: int = 1000) -> MetricsView:
        """Live and final figures."""
        named = {} if name is None else {"name": name}
        return self._get(f"/runs/{quote(run_id, safe='')}/metrics", MetricsView, max_points=max_points, **named)

    def table(self, run_id: str) -> TableView:
        """The table of an evaluation."""
        return self._get(f"/runs/{quote(run_id, safe='')}/table", TableView)

    def artifacts(self, run_id: str) -> ArtifactsView:
        """What a run made."""
        return self._get(f"/runs/{quote(run_id, safe='')}/artifacts", ArtifactsView)

    def download(self, run_id: str, artifact: str, path: str, destination: Path) -> int:
        """Write one file of an artifact (``path`` "" for an artifact that is a file); the number of its bytes.

        The file is there whole or not at all; one that is there already is replaced.
        """
        address = f"/runs/{quote(run_id, safe='')}/artifacts/{quote(artifact, safe='')}"
        if path:
            address += f"/{quote(path)}"
        temporary = destination.with_name(f".{destination.name}.part")
        try:
            with self._http.stream("GET", address) as response:
                _check(response)
                with temporary.open("wb") as stream:
                    for block in response.iter_bytes():
                        stream.write(block)
                    stream.flush()
                    os.fsync(stream.fileno())
            temporary.replace(destination)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        finally:
            temporary.unlink(missing_ok=True)
        return destination.stat().st_size

    def _get(self, path: str, answer: type[Answer], **parameters: str | int | bool) -> Answer:
        return _read(self._send("GET", path, params=parameters), answer)

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **options)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._unreachable(error) from error
        _check(response)
        return response

    def _unreachable(self, error: Exception) -> ApiUnreachable:
        reason = str(error).strip() or type(error).__name__
        return ApiUnreachable(f"no API answers at {self.url} ({reason})")


def _check(response: httpx.Response) -> None:
    """Raise what a problem document says."""
    if response.is_success:
        return
    text = response.read().decode("utf-8", "replace")
    try:
        problem = ProblemView.model_validate_json(text)
    except ValidationError:
        # Something else listens there: a proxy's page, say.
        line = re.sub(r"\s+", " ", text)[:_MAX_ERROR_CHARACTERS]
        raise ApiError(response.status_code, f"HTTP {response.status_code}: {line}") from None
    raise ApiError(problem.status, problem.detail, faults=problem.faults, request_id=problem.request_id)


def _read(response: httpx.Response, answer: type[Answer]) -> Answer:
    try:
        return answer.model_validate_json(response.content)
    except ValidationError as error:
        detail = f"{response.url} answered something else than a distox API does; check DISTOX_API_URL"
        raise ApiError(response.status_code, detail) from error
