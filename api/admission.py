"""Which specs the API takes: read from a request's body, and checked for the places that they name.

The API reads for many people on a machine of its own, so a spec may name a hub model or a place that its sender may
read, and nothing else: a job that opened any path would print the operator's files in its error messages. What a
reference or a hub name leads to is the job's business.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from configs.load import Fault, SpecError, parse_spec, validate_spec
from configs.schema.base import REFERENCE_PATTERN, Resources, SpecBase
from configs.schema.data import Dataset, ExtraPairs, Split
from configs.schema.export import Card
from configs.schema.inference import RowInput, Safety, Speed, System
from configs.schema.kinds import AnySpec, Detoxify, Export
from configs.schema.training import TeacherCache

YAML_TYPES = frozenset({"application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml"})
JSON_TYPE = "application/json"

TEXTS: frozenset[tuple[type[BaseModel], str]] = frozenset(
    {
        (SpecBase, "name"),
        (Resources, "gpu_type"),
        (Dataset, "source_column"),
        (Dataset, "target_column"),
        (Dataset, "prefix"),
        (ExtraPairs, "source_column"),
        (ExtraPairs, "target_column"),
        (Split, "column"),
        (RowInput, "text_column"),
        (Safety, "blocklist"),
        (Detoxify, "prefix"),
        (Export, "prefix"),
        (Speed, "baseline"),
        (Card, "title"),
        (Card, "license"),
        (Card, "language"),
        (Card, "system"),
    }
)
"""Fields with text of any form, which no job takes for a place."""

WRITTEN: frozenset[tuple[type[BaseModel], str]] = frozenset({(SpecBase, "output"), (TeacherCache, "folder")})
"""Fields that name a folder which a job writes into."""
FILES: frozenset[tuple[type[BaseModel], str]] = WRITTEN | {(RowInput, "path"), (System, "rows"), (Card, "results")}
"""Fields that name a file or folder and never something of a hub."""

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
"""A word of the schema, or a hub's ``name`` or ``owner/name``."""
_DATA_FILE = re.compile(r"\.(csv|tsv|jsonl?|parquet)$", re.IGNORECASE)


@dataclass(frozen=True)
class Roots:
    """Where specs of callers that are no admins may read."""

    storage: Path
    """Results of runs are below ``runs/{run}``: only the owner of the run may name them."""
    inputs: Path
    """Files that the operator put there for everybody."""

    @classmethod
    def of_home(cls, home: Path, storage_url: str) -> Roots:
        """The usual ones. The home itself is none: it holds the admin's key."""
        return cls(storage=Path(storage_url), inputs=home / "inputs")


def read_spec(body: bytes, *, content_type: str) -> AnySpec:
    """The spec in a request's body.

    Raises:
        SpecError: it's empty, not UTF-8, not JSON or YAML as its type says, or no spec.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SpecError([Fault("body", "", f"isn't UTF-8 (byte {error.start})", "send the spec as UTF-8")]) from error
    if not text.strip():
        raise SpecError([Fault("body", "", "is empty", "send a spec, as in configs/quickstart.yaml")])
    try:
        if content_type in YAML_TYPES:
            return parse_spec(text, source="body")
        return validate_spec(json.loads(text, object_pairs_hook=_unique_keys), source="body")
    except json.JSONDecodeError as error:
        fault = Fault("body", "", f"not JSON ({error})", "mend it, or send YAML with Content-Type: application/yaml")
        raise SpecError([fault]) from error
    except RecursionError as error:
        raise SpecError([Fault("body", "", "is nested too deeply", "write it flatter")]) from error


def check_places(spec: AnySpec, roots: Roots, *, is_admin: bool, may_read: Callable[[str], bool]) -> None:
    """Refuse a spec that names a place which its sender may not use, or that no job could find.

    Args:
        spec: as it was sent.
        roots: where callers that are no admins may read.
        is_admin: whether every absolute path is allowed.
        may_read: whether the run of an id is the sender's.

    Raises:
        SpecError: with one fault for each such place.
    """
    found = list(_places(spec, ""))
    faults = [
        fault
        for place in found
        if (fault := _place_fault(place, roots, is_admin=is_admin, may_read=may_read)) is not None
    ]
    if faults:
        raise SpecError(faults, "body")


@dataclass(frozen=True)
class _Place:
    field: str
    value: str
    is_file: bool
    is_output: bool


def _place_fault(place: _Place, roots: Roots, *, is_admin: bool, may_read: Callable[[str], bool]) -> Fault | None:
    value = place.value
    if re.match(REFERENCE_PATTERN, value) or (not place.is_file and _is_name(value)):
        return None
    if "://" in value:
        return None if is_admin else Fault(place.field, value, "is a URL", "only an admin's key may name one")
    if not Path(value).is_absolute():
        remedy = "give an absolute path; `distox submit` makes paths of files that exist absolute"
        return Fault(place.field, value, "is a relative path, which means nothing to the API", remedy)
    if is_admin:
        return None
    if place.is_output:
        return Fault(place.field, value, "chooses where results go", "only an admin's key may; leave it out")
    if _is_allowed(Path(value).resolve(), roots, may_read):
        return None
    return Fault(place.field, value, "is no place that this key may read", "name a result of your own runs")


def _is_allowed(path: Path, roots: Roots, may_read: Callable[[str], bool]) -> bool:
    runs = roots.storage.resolve() / "runs"
    if path.is_relative_to(runs):
        below = path.relative_to(runs).parts
        return bool(below) and may_read(below[0])
    return path.is_relative_to(roots.inputs.resolve())


def _is_name(value: str) -> bool:
    return _NAME.fullmatch(value) is not None and ".." not in value and _DATA_FILE.search(value) is None


def _places(model: BaseModel, field: str) -> Iterator[_Place]:
    """Every string that may name a place; a field that isn't known to be text counts as one."""
    for name, info in type(model).model_fields.items():
        owner = _declaring(type(model), name)
        if (owner, name) in TEXTS:
            continue
        words = _words(info.annotation)
        for where, value in _strings(getattr(model, name), f"{field}.{name}" if field else name):
            if isinstance(value, BaseModel):
                yield from _places(value, where)
            elif value not in words:
                yield _Place(where, value, (owner, name) in FILES, (owner, name) in WRITTEN)


def _strings(value: Any, field: str) -> Iterator[tuple[str, str | BaseModel]]:
    if isinstance(value, (str, BaseModel)):
        yield field, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _strings(item, f"{field}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _strings(item, f"{field}.{index}")


def _declaring(model: type[BaseModel], name: str) -> type[BaseModel]:
    """The class that declares a field of ``model``."""
    return next(base for base in reversed(model.__mro__) if name in inspect.get_annotations(base))


def _words(annotation: Any) -> set[Any]:
    """The values of a Literal."""
    arguments = get_args(annotation)
    return {item for item in arguments if isinstance(item, str)}.union(*(_words(item) for item in arguments))


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object's members; the first value of a key that stands twice would silently be lost."""
    members: dict[str, Any] = {}
    for key, value in pairs:
        if key in members:
            raise SpecError([Fault(key[:80], "", "stands twice", "remove one")])
        members[key] = value
    return members
