"""References to what other work made, and which outputs each kind has.

``${steps.NAME.OUTPUT}`` names a step of the same pipeline and makes its graph; ``${runs.ID.OUTPUT}`` names a run that
has SUCCEEDED, and is replaced by a path when the spec is submitted.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple

OUTPUTS: dict[str, tuple[str, ...]] = {
    "prepare": ("dataset", "tokenizer", "judges", "dump"),
    "finetune": ("model",),
    "distill": ("model",),
    "export": ("model", "bundle", "bundle_zip"),
    "detoxify": ("rows",),
    "evaluate": ("scores",),
}
"""Kind of step → the names that another step may refer to; each is a path in the storage."""

_REFERENCE = re.compile(r"\$\{steps\.([a-z][a-z0-9_]*)\.([a-z_]+)\}")
_RUN_REFERENCE = re.compile(r"\$\{runs\.(r-[0-9a-z]+)\.([a-z_]+)\}")


class Reference(NamedTuple):
    """Where a reference stands, and what it names."""

    field: str
    step: str
    output: str


class BrokenReference(NamedTuple):
    """A reference, or what looks like one, that can't be followed."""

    field: str
    value: str
    message: str
    remedy: str


def find_references(value: Any, field: str = "") -> Iterator[Reference]:
    """Yield every reference in a tree of dicts, lists and strings; a string is a reference whole, or none."""
    for place, text in _strings(value, field):
        if match := _REFERENCE.fullmatch(text):
            yield Reference(place, match[1], match[2])


def resolve_references(value: Any, lookup: Callable[[str, str], str]) -> Any:
    """Return the tree with each reference to a step replaced by ``lookup(step, output)``."""
    return _replaced(value, _REFERENCE, lookup)


class RunReference(NamedTuple):
    """Where a reference to a run stands, and what it names."""

    field: str
    value: str
    run_id: str
    output: str


def find_run_references(value: Any) -> Iterator[RunReference]:
    """Yield every reference to a run in a tree of dicts, lists and strings."""
    for place, text in _strings(value, ""):
        if match := _RUN_REFERENCE.fullmatch(text):
            yield RunReference(place, text, match[1], match[2])


def resolve_run_references(value: Any, lookup: Callable[[str, str], str]) -> Any:
    """Return the tree with each reference to a run replaced by ``lookup(run_id, output)``."""
    return _replaced(value, _RUN_REFERENCE, lookup)


def _replaced(value: Any, pattern: re.Pattern[str], lookup: Callable[[str, str], str]) -> Any:
    if isinstance(value, dict):
        return {key: _replaced(item, pattern, lookup) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_replaced(item, pattern, lookup) for item in value]
    if isinstance(value, str) and (match := pattern.fullmatch(value)):
        return lookup(match[1], match[2])
    return value


def order_of(predecessors: Mapping[str, set[str]]) -> list[str]:
    """The steps, each after those it waits for.

    Raises:
        CycleError: steps wait for one another.
    """
    return list(TopologicalSorter(predecessors).static_order())


def broken_references(steps: Mapping[str, Any]) -> Iterator[BrokenReference]:
    """Yield what is wrong with the graph of ``steps`` (plain data, perhaps not even valid): all of it at once."""
    known: dict[str, set[str]] = {name: set() for name in steps}
    for name, step in steps.items():
        for field, text in _strings(step, f"steps.{name}"):
            if "${" not in text or _RUN_REFERENCE.fullmatch(text):
                continue
            match = _REFERENCE.fullmatch(text)
            if match is None:
                remedy = "write the whole value as ${steps.NAME.OUTPUT}, or ${runs.ID.OUTPUT}"
                yield BrokenReference(field, text, "is no reference, but has ${ in it", remedy)
            elif (fault := _broken(Reference(field, match[1], match[2]), text, steps)) is not None:
                yield fault
            else:
                known[name].add(match[1])
    try:
        order_of(known)
    except CycleError as error:
        circle = list(reversed(error.args[1]))
        message = f"wait for one another in a circle ({' needs '.join(circle)})"
        yield BrokenReference("steps", "", message, f"take a reference out of one of {', '.join(sorted(set(circle)))}")


def _broken(reference: Reference, text: str, steps: Mapping[str, Any]) -> BrokenReference | None:
    """What is wrong with one reference; nothing when the step it names has no known kind, which is another fault."""
    if reference.step not in steps:
        remedy = f"{_did_you_mean(reference.step, list(steps))}the steps are {', '.join(map(str, steps))}"
        return BrokenReference(reference.field, text, "names no step of this pipeline", remedy)
    target = steps[reference.step]
    kind = target.get("kind") if isinstance(target, Mapping) else None
    outputs = OUTPUTS.get(kind) if isinstance(kind, str) else None
    if outputs is None or reference.output in outputs:
        return None
    hint = _did_you_mean(reference.output, outputs)
    has = f"it is a step of kind {kind} and has {', '.join(outputs)}"
    return BrokenReference(reference.field, text, f"names no output of {reference.step}", f"{hint}{has}")


def _strings(value: Any, field: str) -> Iterator[tuple[str, str]]:
    """Every string of a tree with its dotted place; keys are not looked at."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _strings(item, f"{field}.{key}" if field else str(key))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _strings(item, f"{field}.{index}")
    elif isinstance(value, str):
        yield field, value


def _did_you_mean(word: str, known: list[str] | tuple[str, ...]) -> str:
    close = difflib.get_close_matches(word, [str(item) for item in known], n=1)
    return f"did you mean {close[0]}? " if close else ""
