"""Every answer that is no success, as ``application/problem+json`` (RFC 9457), from one table.

Guarantee: a problem says what was wrong and what to do, and never holds a key, a path of the server, a traceback or
comment text. What only the operator may know goes to the log under the same request id.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from enum import StrEnum
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response

from api.schemas import FaultView, ProblemView
from cluster.records import RunNotFound
from cluster.store import StoreError
from configs.faults import Fault, SpecError, did_you_mean

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:distox:problem:"
MAX_FAULTS = 100
"""Faults of one answer: a megabyte of nonsense has tens of thousands."""


class Problem(StrEnum):
    """What can be wrong; the value is the last part of the problem's ``type``."""

    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not-found"
    METHOD_NOT_ALLOWED = "method-not-allowed"
    CONFLICT = "conflict"
    TOO_LARGE = "too-large"
    UNSUPPORTED_TYPE = "unsupported-media-type"
    INVALID = "invalid"
    TOO_MANY = "too-many-requests"
    INTERNAL = "internal"
    UNAVAILABLE = "unavailable"


PROBLEMS: Mapping[Problem, tuple[HTTPStatus, str]] = {
    Problem.UNAUTHENTICATED: (HTTPStatus.UNAUTHORIZED, "No valid key was given"),
    Problem.FORBIDDEN: (HTTPStatus.FORBIDDEN, "The key's role doesn't allow this"),
    Problem.NOT_FOUND: (HTTPStatus.NOT_FOUND, "There is no such thing"),
    Problem.METHOD_NOT_ALLOWED: (HTTPStatus.METHOD_NOT_ALLOWED, "The path doesn't know this method"),
    Problem.CONFLICT: (HTTPStatus.CONFLICT, "The state of things doesn't allow this"),
    Problem.TOO_LARGE: (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The request is too large"),
    Problem.UNSUPPORTED_TYPE: (HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The content type isn't understood"),
    Problem.INVALID: (HTTPStatus.UNPROCESSABLE_ENTITY, "The request is wrong"),
    Problem.TOO_MANY: (HTTPStatus.TOO_MANY_REQUESTS, "Too many requests"),
    Problem.INTERNAL: (HTTPStatus.INTERNAL_SERVER_ERROR, "The server made an error"),
    Problem.UNAVAILABLE: (HTTPStatus.SERVICE_UNAVAILABLE, "The results store doesn't answer"),
}
"""Problem → its status and title."""

_BY_STATUS = {int(status): problem for problem, (status, _) in PROBLEMS.items()}


class Refused(Exception):  # noqa: N818 (an answer, not a failure of ours)
    """A request that is answered with a problem."""

    def __init__(
        self,
        problem: Problem,
        detail: str,
        *,
        faults: Sequence[Fault] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.problem = problem
        self.detail = detail
        self.faults = faults
        self.headers = dict(headers or {})


def install_handlers(app: FastAPI) -> None:
    """Answer every expected exception with its problem; the unexpected ones are ``api.front``'s."""
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(RunNotFound, _run_not_found)
    app.add_exception_handler(SpecError, _wrong_spec)
    app.add_exception_handler(RequestValidationError, _wrong_parameters)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(StoreError, _store_down)


def problem_response(
    problem: Problem,
    detail: str,
    *,
    request_id: str,
    faults: Sequence[Fault] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The HTTP answer of a problem."""
    status, title = PROBLEMS[problem]
    body = ProblemView(
        type=f"{TYPE_PREFIX}{problem}",
        title=title,
        status=int(status),
        detail=detail,
        request_id=request_id,
        faults=[FaultView.of(fault) for fault in faults] or None,
    )
    content = body.model_dump(mode="json", exclude_none=True)
    return JSONResponse(content, status_code=int(status), headers=headers, media_type=MEDIA_TYPE)


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return problem_response(
        error.problem, error.detail, request_id=_id(request), faults=error.faults, headers=error.headers
    )


def _run_not_found(request: Request, error: Exception) -> Response:
    return problem_response(Problem.NOT_FOUND, f"{error}; GET /v1/runs lists yours", request_id=_id(request))


def _wrong_spec(request: Request, error: Exception) -> Response:
    assert isinstance(error, SpecError)
    return _invalid(request, "the spec", error.faults)


def _wrong_parameters(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _invalid(request, "the request", [_parameter_fault(item) for item in error.errors()])


def _invalid(request: Request, what: str, faults: Sequence[Fault]) -> Response:
    count = "1 fault" if len(faults) == 1 else f"{len(faults):,} faults"
    more = f"; the first {MAX_FAULTS} are listed" if len(faults) > MAX_FAULTS else ""
    detail = f"{what} has {count}{more}"
    return problem_response(Problem.INVALID, detail, request_id=_id(request), faults=faults[:MAX_FAULTS])


def _http_error(request: Request, error: Exception) -> Response:
    """What the framework itself refuses: an unknown path, a wrong method."""
    assert isinstance(error, HTTPException)
    problem = _BY_STATUS.get(error.status_code, Problem.INVALID if error.status_code < 500 else Problem.INTERNAL)
    details = {
        Problem.NOT_FOUND: "no such path; /docs shows all",
        Problem.METHOD_NOT_ALLOWED: f"{request.method} isn't for this path; /docs shows all",
    }
    detail = details.get(problem, PROBLEMS[problem][1])
    return problem_response(problem, detail, request_id=_id(request), headers=error.headers)


def _store_down(request: Request, error: Exception) -> Response:
    # The message names the store's place, which is the operator's business.
    log.error("request %s: %s", _id(request), error)
    detail = "the results store can't be used now; try again, or ask the operator to look at the API's log"
    return problem_response(Problem.UNAVAILABLE, detail, request_id=_id(request), headers={"Retry-After": "5"})


def _id(request: Request) -> str:
    return str(request.state.request_id)


_LIMITS = {"greater_than_equal": ("ge", "at least"), "less_than_equal": ("le", "at most")}


def _parameter_fault(item: Mapping[str, Any]) -> Fault:
    context, kind = item.get("ctx", {}), item["type"]
    if kind in _LIMITS:
        key, words = _LIMITS[kind]
        remedy = f"use a number {words} {context[key]}"
    elif kind in {"enum", "literal_error"}:
        expected = str(context["expected"]).replace("'", "").replace(" or ", ", ")
        remedy = f"{did_you_mean(str(item['input']), expected.split(', '))}use one of {expected}"
    else:
        remedy = _REMEDIES.get(kind, "see /docs")
    message = _MESSAGES.get(kind) or str(item["msg"])
    value = "" if kind == "missing" else str(item["input"])[:80]
    return Fault(".".join(str(part) for part in item["loc"]), value, message[:1].lower() + message[1:], remedy)


_MESSAGES = {
    "enum": "is none of the values that it may have",
    "literal_error": "is none of the values that it may have",
}

_REMEDIES = {
    "int_parsing": "use a whole number",
    "bool_parsing": "use true or false",
    "string_pattern_mismatch": "copy it from an earlier answer of the API",
    "string_too_long": "shorten it",
    "string_too_short": "give it, or leave the parameter out",
    "missing": "add it",
}
