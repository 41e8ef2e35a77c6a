"""The description of the API for programs: OpenAPI 3.1 at ``/openapi.json``, with the schema of specs inside it."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter

from api.errors import MEDIA_TYPE, PROBLEMS, Problem
from api.schemas import ProblemView
from configs.schema.kinds import SPEC

_REFERENCE = "#/components/schemas/{model}"

DESCRIPTION = """Submit specs, follow runs and read results of distox.

Every request but `/v1/health` needs a key: `Authorization: Bearer dx_…`. `distox up` writes the first one, an admin's,
into `$DISTOX_HOME/api-key`; `eval "$(distox env)"` puts it into `$DISTOX_API_KEY`. `distox keys create` makes others: a
*viewer* reads, a *submitter* also submits and cancels, an *admin* does so for every owner. A run of another owner is
answered like one that doesn't exist.

What goes wrong is answered as `application/problem+json` with `detail` and, for a wrong spec, one entry in `faults` for
each thing that is wrong: field, value, message, remedy. Every answer has the header `X-Request-ID`.

```
curl -H "Authorization: Bearer $DISTOX_API_KEY" "$DISTOX_API_URL/v1/runs?state=RUNNING"
curl -H "Authorization: Bearer $DISTOX_API_KEY" -H "Content-Type: application/yaml" \\
     --data-binary @configs/quickstart.yaml "$DISTOX_API_URL/v1/runs"
```
"""

TAGS = [
    {"name": "runs", "description": "A submitted spec and how it goes."},
    {"name": "results", "description": "What a run leaves behind."},
    {"name": "health", "description": "For load balancers and start scripts."},
]

_EXPORT = {"kind": "export", "name": "student-int8", "model": {"name": "ScaDSAI/student"}, "quantization": "int8"}
_DETOXIFY = """kind: detoxify
name: march comments
model: {name: /data/models/student-int8}
input: {path: /data/dumps/march.csv, text_column: comment}
resources: {num_workers: 2}
"""

_SPEC = {"$ref": "#/components/schemas/Spec"}
SUBMIT_BODY: dict[str, Any] = {
    "required": True,
    "description": "A spec of any kind; at most 1 MB as JSON, 100 kB as YAML.",
    "content": {
        "application/json": {
            "schema": _SPEC,
            "examples": {"export": {"summary": "Convert a model", "value": _EXPORT}},
        },
        "application/yaml": {
            "schema": _SPEC,
            "examples": {"detoxify": {"summary": "Rewrite a dump", "value": _DETOXIFY}},
        },
    },
}

DOWNLOAD: dict[str, Any] = {
    "description": "The bytes of the file.",
    "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route declares of the problems that it may answer with."""
    by_status = {int(status): (problem, title) for problem, (status, title) in PROBLEMS.items()}
    return {status: _problem(status, *by_status[status]) for status in statuses}


def install_openapi(app: FastAPI) -> None:
    """Make ``app.openapi()`` the description with the schema of specs; it's built once."""

    def build() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _build(app)
        return app.openapi_schema

    app.openapi = build  # type: ignore[method-assign]


def _build(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes, tags=app.openapi_tags
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name, adapter in (("Spec", SPEC), ("ProblemView", TypeAdapter(ProblemView))):
        schema = adapter.json_schema(ref_template=_REFERENCE)
        schemas |= schema.pop("$defs", {})
        schemas[name] = schema
    document["servers"] = [{"url": "/"}]
    return document


def _problem(status: int, problem: Problem, title: str) -> dict[str, Any]:
    example = {
        "type": f"urn:distox:problem:{problem}",
        "title": title,
        "status": status,
        "detail": _DETAILS[problem],
        "request_id": "7f0c2a9e51d34c0b8a66f0d2c4b1e9aa",
    }
    if problem is Problem.INVALID:
        example["faults"] = [
            {
                "field": "training.batch_size",
                "value": '"4"',
                "message": "input should be a valid integer",
                "remedy": "write a whole number without quotes",
            }
        ]
    schema = {"$ref": "#/components/schemas/ProblemView"}
    return {"description": title, "content": {MEDIA_TYPE: {"schema": schema, "example": example}}}


_DETAILS = {
    Problem.UNAUTHENTICATED: "send the header Authorization: Bearer dx_…",
    Problem.FORBIDDEN: "this needs the role submitter, and the key has the role viewer",
    Problem.NOT_FOUND: "no run r-1h8qj2k0x9ab3cdefg; GET /v1/runs lists yours",
    Problem.CONFLICT: "this Idempotency-Key was used for another spec; use a new key for a new spec",
    Problem.TOO_LARGE: "a request may have 1,000,000 bytes; put data into files and name them in the spec",
    Problem.UNSUPPORTED_TYPE: "send Content-Type: application/json or application/yaml",
    Problem.INVALID: "the spec has 1 fault",
    Problem.TOO_MANY: "at most 3000 a minute; try again in 1 s",
    Problem.UNAVAILABLE: "the results store can't be used now; try again, or ask the operator to look at the API's log",
}
