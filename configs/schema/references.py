"""References between the steps of a pipeline: ``${steps.NAME.OUTPUT}``, and which outputs each kind has."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

OUTPUTS: dict[str, tuple[str, ...]] = {
    "prepare": ("dataset", "tokenizer", "judges", "dump"),
    "finetune": ("model",),
    "distill": ("model",),
    "export": ("model",),
    "detoxify": ("rows",),
    "evaluate": ("scores",),
}
"""Kind of step → the names that another step may refer to; each is a path in the storage."""

_REFERENCE = re.compile(r"\$\{steps\.([a-z][a-z0-9_]*)\.([a-z_]+)\}")


class Reference(NamedTuple):
    """Where a reference stands, and what it names."""

    field: str
    step: str
    output: str


def find_references(value: Any, field: str = "") -> Iterator[Reference]:
    """Yield every reference in a tree of dicts, lists and strings; a string is a reference whole, or none."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from find_references(item, f"{field}.{key}" if field else str(key))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from find_references(item, f"{field}.{index}")
    elif isinstance(value, str) and (match := _REFERENCE.fullmatch(value)):
        yield Reference(field, match[1], match[2])


def resolve_references(value: Any, lookup: Callable[[str, str], str]) -> Any:
    """Return the tree with each reference replaced by ``lookup(step, output)``."""
    if isinstance(value, dict):
        return {key: resolve_references(item, lookup) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [resolve_references(item, lookup) for item in value]
    if isinstance(value, str) and (match := _REFERENCE.fullmatch(value)):
        return lookup(match[1], match[2])
    return value
