"""Loads a spec from YAML or JSON, or says what is wrong with it: one message per fault, with field, value and remedy.

All faults of a spec are told at once; a rule about several fields is asked when each of them alone is right. Imports
neither torch nor ray: a wrong spec is answered before they would have been loaded.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from configs.faults import Fault, SpecError, did_you_mean, faults_of, short
from configs.parsing import MAX_SPEC_BYTES, parse_text, unusable_values
from configs.schema.kinds import KINDS, SPEC, AnySpec, Spec
from configs.schema.references import broken_references

__all__ = ["Fault", "SpecError", "dump_spec", "json_schema", "load_spec", "parse_spec", "validate_spec"]


def load_spec(path: str | Path) -> AnySpec:
    """Read and validate one spec file.

    Raises:
        SpecError: the file is missing, empty, not YAML or JSON, or its content is not a spec.
    """
    file, source = Path(path), str(path)
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_SPEC_BYTES + 1)
        # A larger one is refused by the parser; it may have been cut within a character.
        text = content.decode("utf-8-sig", "strict" if len(content) <= MAX_SPEC_BYTES else "replace")
    except FileNotFoundError:
        raise SpecError([Fault(source, "", "no such file", _file_like(file))], source) from None
    except IsADirectoryError:
        raise SpecError([Fault(source, "", "is a folder", "give the path of a spec file")], source) from None
    except UnicodeDecodeError as error:
        message = f"isn't UTF-8 (byte {error.start})"
        raise SpecError([Fault(source, "", message, "save it as UTF-8, or name the spec file")], source) from None
    except (OSError, ValueError) as error:
        message = f"can't be read ({getattr(error, 'strerror', None) or error})"
        raise SpecError([Fault(source, "", message, "check the path and its permissions")], source) from None
    return parse_spec(text, source=source)


def parse_spec(text: str, *, source: str = "spec") -> AnySpec:
    """Parse YAML or JSON and validate it.

    Raises:
        SpecError: it is empty, isn't YAML or JSON, or isn't a spec.
    """
    data = parse_text(text, source=source)
    if data is None:
        raise SpecError([Fault(source, "", "is empty", f"write a spec with a kind: {', '.join(KINDS)}")], source)
    return validate_spec(data, source=source)


def validate_spec(data: Any, *, source: str = "spec") -> AnySpec:
    """Validate what was parsed.

    Raises:
        SpecError: with one fault for each thing that is wrong.
    """
    if faults := unusable_values(data, source=source):
        raise SpecError(faults, source)
    if not isinstance(data, Mapping):
        fault = Fault(source, short(data), "isn't keys and values", f"begin with kind: and one of {', '.join(KINDS)}")
        raise SpecError([fault], source)
    if data.get("kind") not in KINDS:
        raise SpecError([_kind_fault(data.get("kind"))], source)
    try:
        return SPEC.validate_json(json.dumps(data))
    except ValidationError as error:
        faults = faults_of(error, Spec, source=source)
        steps = data.get("steps")
        if data["kind"] == "pipeline" and isinstance(steps, Mapping):
            # The schema looks at references only when every step is right; then a name that stands for keys has them.
            told = {fault.field for fault in faults} | {fault.field.removesuffix(".name") for fault in faults}
            faults += [
                Fault(item.field, short(item.value) if item.value else "", item.message, item.remedy)
                for item in broken_references(steps)
                if item.field not in told
            ]
        raise SpecError(faults, source) from error


def dump_spec(spec: AnySpec) -> dict[str, Any]:
    """The resolved spec, every default written out, as plain JSON data; ``validate_spec`` gives the same spec back."""
    return spec.model_dump(mode="json")


def json_schema() -> dict[str, Any]:
    """The JSON Schema of all kinds, for editors and for the API; every field has a description."""
    schema = SPEC.json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "distox spec", **schema}


def _kind_fault(given: Any) -> Fault:
    remedy = f"the kinds are {', '.join(KINDS)}"
    if given is None:
        return Fault("kind", "", "is missing", f"add it; {remedy}")
    return Fault("kind", short(given), "is no kind of spec", f"{did_you_mean(str(given), KINDS)}{remedy}")


def _file_like(file: Path) -> str:
    names = [item.name for ending in ("yaml", "yml", "json") for item in file.parent.glob(f"*.{ending}")]
    close = difflib.get_close_matches(file.name, names, n=1)
    return f"did you mean {file.parent / close[0]}?" if close else "give the path of a YAML or JSON spec"
