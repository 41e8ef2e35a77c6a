"""Relative paths in a spec, made absolute against the folder it was submitted from.

Which fields may hold a path is said by the schema (``HoldsPath``). Knows nothing of what the paths lead to.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar, get_args

from configs.schema.base import HoldsPath, Model
from configs.schema.data import SAMPLE
from configs.schema.inference import EMBEDDED
from configs.schema.kinds import AnySpec
from configs.schema.training import ZERO_STAGES

OUR_WORDS = frozenset({SAMPLE, EMBEDDED, *ZERO_STAGES})
"""Never a path, even where a file of that name exists; ``./sample`` is one."""

DATA_ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet", ".json")
"""No hub name ends so: a file that is missed is missed where the submitter meant it to be."""

AModel = TypeVar("AModel", bound=Model)


def resolve_paths(spec: AnySpec, base: Path) -> AnySpec:
    """The spec with its relative local paths made absolute.

    A value counts as a path when it exists under ``base``, begins with ``./``, ``../`` or ``~/``, or ends as a file of
    data does; hub names, references, URLs and words such as ``sample`` are left as they are. Files of rows and
    ``output`` are always paths.

    Args:
        spec: stays as it is.
        base: the submitter's working directory.
    """
    return _resolve(spec, base.absolute())


def _resolve(model: AModel, base: Path) -> AModel:
    changed = {}
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        marks = [*field.metadata, *_marks(field.annotation)]
        mark = next((item for item in marks if isinstance(item, HoldsPath)), None)
        resolved = _resolve_value(value, mark, base)
        if resolved != value:
            changed[name] = resolved
    return model.model_copy(update=changed) if changed else model


def _resolve_value(value: Any, mark: HoldsPath | None, base: Path) -> Any:
    if isinstance(value, Model):
        return _resolve(value, base)
    if isinstance(value, dict):
        return {key: _resolve_value(item, None, base) for key, item in value.items()}
    return _absolute(value, mark, base) if mark is not None and isinstance(value, str) else value


def _absolute(value: str, mark: HoldsPath, base: Path) -> str:
    if "://" in value or value.startswith("${") or value in OUR_WORDS:
        return value
    looks_local = value.startswith(("./", "../", "~/")) or value.lower().endswith(DATA_ENDINGS)
    if mark.always or looks_local or (base / value).exists():
        return str((base / Path(value).expanduser()).resolve())
    return value


def _marks(annotation: Any) -> list[Any]:
    """The metadata of every type within an annotation: that of ``Annotated[str, …] | None`` lies inside."""
    inner = [mark for argument in get_args(annotation) for mark in _marks(argument)]
    return [*getattr(annotation, "__metadata__", ()), *inner]
