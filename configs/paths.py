"""Relative paths in a spec, made absolute against the folder it was submitted from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from configs.load import dump_spec, validate_spec
from configs.schema.kinds import AnySpec

PATH_FIELDS = frozenset(
    {"name", "tokenizer", "path", "rows", "style", "content", "fluency", "trained", "gate", "deepspeed"}
)
"""Keys that may hold a path, a hub name or a word of ours: only what exists, or says that it is a path, is one."""
NAMED_PARENTS = frozenset({"dataset", "model", "teacher_model", "student_model"})
"""Where ``name`` may be a path; the name of the spec itself is none."""


def resolve_paths(spec: AnySpec, base: Path) -> AnySpec:
    """The spec with its relative local paths made absolute.

    A value counts as a path when it exists under ``base`` or begins with ``./`` or ``../``; hub names, references, URLs
    and words such as ``sample`` are left as they are. ``output`` is always a path.

    Args:
        spec: stays as it is.
        base: the submitter's working directory.
    """
    return validate_spec(_resolve(dump_spec(spec), base.absolute(), parent=""))


def _resolve(value: Any, base: Path, *, parent: str, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _resolve(item, base, parent=key, key=name) for name, item in value.items()}
    if isinstance(value, list):
        return [_resolve(item, base, parent=parent, key=key) for item in value]
    if not isinstance(value, str) or "://" in value or value.startswith("${"):
        return value
    if key == "output":
        return str((base / value).resolve())
    if key not in PATH_FIELDS or (key == "name" and parent not in NAMED_PARENTS):
        return value
    if value.startswith(("./", "../")) or (base / value).exists():
        return str((base / value).resolve())
    return value
