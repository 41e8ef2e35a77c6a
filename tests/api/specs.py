"""Small specs for the tests of this room."""

from __future__ import annotations

from typing import Any

from configs.load import validate_spec
from configs.schema.kinds import AnySpec

EXPORT = {"kind": "export", "name": "little", "model": {"name": "someone/student"}}
"""As a client sends it."""


def export(**values: Any) -> AnySpec:
    return validate_spec({**EXPORT, **values})


def pipeline(**values: Any) -> AnySpec:
    """``data`` → ``smaller``."""
    steps = {
        "data": {"kind": "prepare", "dataset": {"name": "sample"}},
        "smaller": {"kind": "export", "model": {"name": "someone/student"}},
    }
    return validate_spec({"kind": "pipeline", "name": "road", "steps": steps, **values})


def evaluate(**values: Any) -> AnySpec:
    spec = {
        "kind": "evaluate",
        "dataset": {"name": "sample"},
        "systems": {"copy": {"control": "copy"}, "student": {"model": {"name": "someone/student"}}},
        "judges": {"trained": "/data/judges"},
    }
    return validate_spec({**spec, **values})
