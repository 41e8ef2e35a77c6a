"""Loads a spec from YAML or JSON, or says what is wrong with it: one message per fault, with field, value and remedy.

Imports neither torch nor ray: a wrong spec is answered before they would have been loaded.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from configs.schema.kinds import KINDS, SPEC, AnySpec

MAX_SPEC_BYTES = 1_000_000
"""A spec is written by hand; more than this is a mistake (a dataset given as a spec)."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a spec."""

    field: str
    value: str
    message: str
    remedy: str

    def __str__(self) -> str:
        """One line for people."""
        where = f"{self.field} = {self.value}" if self.value else self.field
        return f"{where}: {self.message}; {self.remedy}" if self.remedy else f"{where}: {self.message}"


class SpecError(ValueError):
    """A spec that can't be used; ``faults`` says why."""

    def __init__(self, faults: list[Fault], source: str = "spec") -> None:
        self.faults = faults
        self.source = source
        super().__init__("\n".join([f"{source}: {len(faults)} fault(s)", *(f"  - {fault}" for fault in faults)]))


class _Loader(yaml.SafeLoader):
    """Safe YAML whose numbers are those of YAML 1.2, so that ``2e-4`` is a number, and whose keys are unique."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that stands twice: the first value would silently be lost."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key if isinstance(key, str) else repr(key))
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {key: list(value) for key, value in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def load_spec(path: str | Path) -> AnySpec:
    """Read and validate one spec file.

    Raises:
        SpecError: the file is missing, empty, not YAML or JSON, or its content is not a spec.
    """
    file = Path(path)
    try:
        if file.stat().st_size > MAX_SPEC_BYTES:
            raise SpecError(
                [Fault(str(path), "", f"larger than {MAX_SPEC_BYTES:,} bytes", "name the spec file")], str(path)
            )
        text = file.read_text("utf-8")
    except FileNotFoundError:
        known = difflib.get_close_matches(file.name, [item.name for item in file.parent.glob("*.y*ml")], n=1)
        remedy = f"did you mean {file.parent / known[0]}?" if known else "give the path of a YAML or JSON spec"
        raise SpecError([Fault(str(path), "", "no such file", remedy)], str(path)) from None
    except IsADirectoryError:
        raise SpecError([Fault(str(path), "", "is a folder", "give the path of a spec file")], str(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(
            [Fault(str(path), "", f"can't be read ({error})", "check its permissions and that it is UTF-8")], str(path)
        ) from error
    return parse_spec(text, source=str(path))


def parse_spec(text: str, *, source: str = "spec") -> AnySpec:
    """Parse YAML (JSON is a part of it) and validate it.

    Raises:
        SpecError: it is empty, isn't YAML, or isn't a spec.
    """
    try:
        data = yaml.load(text, Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "the file"
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise SpecError([Fault(where, "", f"not YAML ({problem})", "mend the line")], source) from error
    if data is None:
        raise SpecError([Fault(source, "", "is empty", f"write a spec with a kind: {', '.join(KINDS)}")], source)
    return validate_spec(data, source=source)


def validate_spec(data: Any, *, source: str = "spec") -> AnySpec:
    """Validate what was parsed.

    Raises:
        SpecError: with one fault for each thing that is wrong.
    """
    if not isinstance(data, Mapping):
        fault = Fault(source, _short(data), f"is a {type(data).__name__}, not keys and values", "start with kind: …")
        raise SpecError([fault], source)
    if data.get("kind") not in KINDS:
        given = data.get("kind")
        close = difflib.get_close_matches(str(given), KINDS, n=1) if given is not None else []
        hint = f"did you mean {close[0]}? " if close else ""
        message = "is missing" if given is None else "is no kind of spec"
        fault = Fault(
            "kind", _short(given) if given is not None else "", message, f"{hint}the kinds are {', '.join(KINDS)}"
        )
        raise SpecError([fault], source)
    try:
        encoded = json.dumps(data)
    except (TypeError, ValueError) as error:
        fault = Fault(source, "", f"holds a value that JSON can't ({error})", "quote dates and use plain values")
        raise SpecError([fault], source) from error
    try:
        return SPEC.validate_json(encoded)
    except ValidationError as error:
        raise SpecError(list(_faults(error)), source) from error


def dump_spec(spec: AnySpec) -> dict[str, Any]:
    """The resolved spec, every default written out, as plain JSON data; ``validate_spec`` gives the same spec back."""
    return spec.model_dump(mode="json")


def json_schema() -> dict[str, Any]:
    """The JSON Schema of all kinds, for editors and for the API."""
    return SPEC.json_schema()


def _faults(error: ValidationError) -> Iterator[Fault]:
    for item in error.errors(include_url=False):
        location = [str(part) for part in item["loc"]]
        # Pydantic names the chosen kind in the path of a tagged union; it is no field.
        field = ".".join(part for index, part in enumerate(location) if not _is_tag(location, index)) or "spec"
        context = item.get("ctx", {})
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "value_error":
            text, _, remedy = message.partition("; ")
            yield Fault(field, "", text, remedy)
            continue
        value = "" if item["type"] == "missing" else _short(item["input"])
        yield Fault(
            field,
            value,
            _MESSAGES.get(item["type"], message[:1].lower() + message[1:]),
            _remedy(item["type"], location, context),
        )


def _is_tag(location: list[str], index: int) -> bool:
    return location[index] in KINDS and (
        index == 0 or (index == 2 and location[0] == "pipeline") or (index == 3 and location[1] == "steps")
    )


_MESSAGES = {"missing": "is missing", "extra_forbidden": "is no key of a spec here"}

_REMEDIES = {
    "missing": "add it",
    "int_type": "write a whole number without quotes",
    "int_from_float": "write a whole number",
    "float_type": "write a number without quotes",
    "bool_type": "write true or false",
    "string_type": "write text (quote it if it looks like a number)",
    "string_too_short": "write something",
    "model_type": "write keys and values",
    "model_attributes_type": "write keys and values",
    "dict_type": "write keys and values",
    "tuple_type": "write a list",
}


def _remedy(kind: str, location: list[str], context: Mapping[str, Any]) -> str:
    if kind == "extra_forbidden":
        names = _field_names(location)
        close = difflib.get_close_matches(location[-1], names, n=1)
        known = f"the keys here are {', '.join(names)}" if names else "see distox schema"
        return f"did you mean {close[0]}? " + known if close else f"remove it; {known}"
    limits = {"greater_than": "gt", "greater_than_equal": "ge", "less_than": "lt", "less_than_equal": "le"}
    words = {"gt": "greater than", "ge": "at least", "lt": "less than", "le": "at most"}
    if kind in limits:
        return f"use a number {words[limits[kind]]} {context[limits[kind]]:g}"
    if kind in {"literal_error", "union_tag_invalid"}:
        return f"use one of {context.get('expected') or context.get('expected_tags')}"
    return _REMEDIES.get(kind, "see distox schema")


def _field_names(location: list[str]) -> list[str]:
    """The keys allowed where ``location`` points, found by walking the models from the root."""
    root = {choice.model_fields["kind"].default: choice for choice in AnySpec.__args__}
    current: Any = None
    for part in location[:-1]:
        if part in root and (current is None or current is root["pipeline"]):
            current = root[part]
            continue
        current = _member(current, part)
    return sorted(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else []


def _member(model: Any, part: str) -> Any:
    """The model class of one field, through optionals; the same class for dictionary keys and list indices."""
    if isinstance(model, type) and issubclass(model, BaseModel) and part in model.model_fields:
        return _model_in(model.model_fields[part].annotation) or model
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if (found := _model_in(argument)) is not None:
            return found
    return None


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."
