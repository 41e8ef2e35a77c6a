"""What is wrong with a spec, for people: one fault for each thing, with field, value and remedy.

Knows how the schema's models nest, and so which keys are allowed where; knows no files.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from configs.schema.base import FAULT, Model

MAX_EXPLAINED = 100
"""Faults that get a remedy of their own, and that an error's text lists: looking for near words takes time."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a spec."""

    field: str
    """Dotted, from the root; or a line of the file; or the file."""
    value: str
    """As JSON, shortened; empty where there is none."""
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
        lines = [f"  - {fault}" for fault in faults[:MAX_EXPLAINED]]
        if len(faults) > MAX_EXPLAINED:
            lines.append(f"  - and {len(faults) - MAX_EXPLAINED:,} more")
        super().__init__("\n".join([f"{source}: {len(faults)} fault(s)", *lines]))


def faults_of(error: ValidationError, root: Any, *, source: str) -> list[Fault]:
    """Pydantic's errors as faults, one for each thing that is wrong.

    Args:
        error: from validating against ``root``.
        root: the annotation that was validated: a union of models told apart by ``kind``.
        source: names the spec where a fault is of no field.
    """
    placed = [(_locate(root, item["loc"]), item) for item in error.errors(include_url=False)]
    settled = list(_settle_unions(placed))
    explained = [_fault(place, item, source) for place, item in settled[:MAX_EXPLAINED]]
    others = [Fault(place.field or source, "", _message(item), SEE) for place, item in settled[MAX_EXPLAINED:]]
    return explained + others


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint that ends in a space, or nothing when no known word is near."""
    words = list(known)
    by_lower = {item.lower(): item for item in words}
    close = difflib.get_close_matches(word.lower(), list(by_lower), n=1)
    return f"did you mean {by_lower[close[0]]}? " if close else ""


def short(value: Any) -> str:
    """A value as JSON in at most 80 characters."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."


@dataclass(frozen=True)
class _Place:
    """Where an error stands: without the labels that pydantic puts into a path for the members of a union."""

    field: str
    last: str
    owner: type[BaseModel] | None
    """The model whose field, or unknown key, it is."""
    union: str | None = None
    """The field that may be of several types, when it is one or lies in one."""


def _locate(root: Any, location: Sequence[str | int]) -> _Place:
    current, owner, union = root, None, None
    names: list[str] = []
    for part in location:
        if part == "[key]":
            continue
        members = _members(current)
        if len(members) > 1:
            if all(_is_model(member) for member in members):
                kinds = {item.model_fields["kind"].default: item for item in members}
                # The place of a broken reference is told without labels.
                current = kinds.get(part, Any)
                if part not in kinds:
                    names.append(str(part))
            else:
                union = ".".join(names)
                current = members[0] if part in {"str", "constrained-str"} else members[-1]
            continue
        current, owner = _step_into(members[0] if members else Any, part)
        names.append(str(part))
    return _Place(".".join(names), names[-1] if names else "", owner, union)


def _step_into(annotation: Any, part: str | int) -> tuple[Any, type[BaseModel] | None]:
    if _is_model(annotation):
        field = annotation.model_fields.get(part)
        return (Any if field is None else field.annotation), annotation
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is dict:
        return arguments[1], None
    return (arguments[0] if origin is tuple else Any), None


def _members(annotation: Any) -> list[Any]:
    """The types that a value may have, None aside."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _members(get_args(annotation)[0])
    if origin in {Union, UnionType}:
        return [item for argument in get_args(annotation) for item in _members(argument)]
    return [] if annotation is type(None) else [annotation]


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


_Item = tuple[_Place, Any]


def _settle_unions(items: list[_Item]) -> Iterator[_Item]:
    """Of a value that fits none of its types keep what is wrong with the one it was meant for, or one error of all."""
    together: dict[str, list[_Item]] = {}
    for place, item in items:
        if place.union is not None:
            together.setdefault(place.union, []).append((place, item))
    for place, item in items:
        if place.union is None:
            yield place, item
        elif same := together.pop(place.union, []):
            deeper = [(other, error) for other, error in same if other.field != place.union]
            meant = deeper or [(other, error) for other, error in same if not str(error["type"]).endswith("_type")]
            is_switch = any(error["type"] == "bool_type" for _, error in same)
            yield from meant or [(place, {**item, "type": "switch_type" if is_switch else "union_type"})]


def _fault(place: _Place, item: Mapping[str, Any], source: str) -> Fault:
    kind, context = item["type"], item.get("ctx", {})
    if kind == FAULT:
        value = "" if item["input"] is None else short(item["input"])
        return Fault(place.field or source, value, context["message"], context["remedy"])
    if kind in {"union_tag_not_found", "union_tag_invalid"}:
        return _kind_fault(place, item)
    if "[key]" in item["loc"]:
        return Fault(place.field, "", "is no name that may stand here", f"use a name that matches {context['pattern']}")
    value = "" if kind == "missing" else short(item["input"])
    return Fault(place.field or source, value, _message(item), _remedy(kind, place, item))


def _message(item: Mapping[str, Any]) -> str:
    return _MESSAGES.get(item["type"]) or item["msg"][:1].lower() + item["msg"][1:]


def _kind_fault(place: _Place, item: Mapping[str, Any]) -> Fault:
    field = f"{place.field}.kind" if place.field else "kind"
    given = item["input"].get("kind") if isinstance(item["input"], Mapping) else None
    kinds = str(item.get("ctx", {}).get("expected_tags") or STEP_KINDS).replace("'", "").split(", ")
    remedy = f"the kinds are {', '.join(kinds)}"
    if given is None:
        return Fault(field, "", "is missing", f"add it; {remedy}")
    if given == "pipeline":
        return Fault(field, short(given), "can't stand in a pipeline", remedy)
    return Fault(field, short(given), "is no kind of step", f"{did_you_mean(str(given), kinds)}{remedy}")


STEP_KINDS = "prepare, finetune, distill, export, detoxify, evaluate"

SEE = "see `distox schema`"

_MESSAGES = {
    "missing": "is missing",
    "extra_forbidden": "is no key of a spec here",
    "union_type": "is neither text nor a list of texts",
    "switch_type": "is neither true, false, nor keys and values",
    "literal_error": "is none of the values that it may have",
    "finite_number": "is no finite number",
    "int_type": "is no whole number",
    "int_from_float": "is no whole number",
    "float_type": "is no number",
    "bool_type": "is neither true nor false",
    "string_type": "is no text",
    "string_too_short": "is empty",
    "string_too_long": "is too long",
    "string_pattern_mismatch": "isn't written as it has to be",
    "too_short": "is empty",
    "model_type": "isn't keys and values",
    "model_attributes_type": "isn't keys and values",
    "dict_type": "isn't keys and values",
    "tuple_type": "is no list",
    "greater_than": "is too small",
    "greater_than_equal": "is too small",
    "less_than": "is too large",
    "less_than_equal": "is too large",
}

_REMEDIES = {
    "int_type": "write digits only, without quotes",
    "int_from_float": "write digits only",
    "float_type": "write a number without quotes",
    "bool_type": "write true or false",
    "string_type": "write text (quote it if it looks like a number)",
    "string_too_short": "write something",
    "model_type": "write keys and values",
    "model_attributes_type": "write keys and values",
    "dict_type": "write keys and values",
    "tuple_type": "write a list",
    "too_short": "write at least one",
    "union_type": "write the name of one column, or a list of them",
    "switch_type": "write true or false, or keys and values",
    "finite_number": "write a number",
}

_LIMITS = {
    "greater_than": ("gt", "greater than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


def _remedy(kind: str, place: _Place, item: Mapping[str, Any]) -> str:
    context = item.get("ctx", {})
    if kind == "missing":
        return _how_to_add(place)
    if kind == "extra_forbidden":
        return _about_unknown_key(place)
    if kind in _LIMITS:
        key, words = _LIMITS[kind]
        return f"use a number {words} {context[key]:g}"
    if kind == "literal_error":
        expected = str(context["expected"]).replace("'", "").replace(" or ", ", ")
        return f"{did_you_mean(str(item['input']), expected.split(', '))}use one of {expected}"
    if kind == "string_too_long":
        return f"use at most {context['max_length']} characters"
    if kind == "string_pattern_mismatch":
        return _like_the_examples(place)
    return _REMEDIES.get(kind, SEE)


def _how_to_add(place: _Place) -> str:
    """What a missing field is for, in the words of its description."""
    field = place.owner.model_fields.get(place.last) if place.owner is not None else None
    about = (field.description or "") if field is not None else ""
    sentence = " ".join(about.split()).split(". ")[0].rstrip(".").replace("``", "")
    return f"add it ({sentence})" if sentence else "add it"


def _like_the_examples(place: _Place) -> str:
    """How a text of a certain form is written, by the examples of its field."""
    field = place.owner.model_fields.get(place.last) if place.owner is not None else None
    examples = [str(item) for item in (field.examples or [])] if field is not None else []
    return f"write it like {' or '.join(examples)}" if examples else SEE


OTHER_WORDS = {
    "lr": "learning_rate",
    "num_epochs": "epochs",
    "num_train_epochs": "epochs",
    "per_device_train_batch_size": "batch_size",
    "gradient_accumulation_steps": "grad_accumulation",
    "alpha": "kd_weight",
    "T": "temperature",
    "beams": "num_beams",
    "d_model": "hidden_size",
    "d_ff": "ffn_size",
    "num_heads": "attention_heads",
    "memory": "memory_gb",
    "deadline": "deadline_seconds",
    "teacher": "teacher_model",
    "student": "student_model",
}
"""What other tools call a key of ours."""


def _about_unknown_key(place: _Place) -> str:
    if place.last == "owner":
        return "remove it; the owner comes from the API key"
    if place.owner is None:
        return "remove it"
    known = sorted(name for name, field in place.owner.model_fields.items() if not field.exclude)
    allowed = f"the keys here are {', '.join(known)}"
    meant = OTHER_WORDS.get(place.last, place.last)
    if meant in known:
        return f"did you mean {meant}? {allowed}"
    hint = did_you_mean(place.last, known)
    if not hint and (deeper := next(_paths_to(meant, place.owner), None)):
        hint = f"did you mean {deeper}? "
    return f"{hint or 'remove it; '}{allowed}"


def _paths_to(name: str, model: type[BaseModel]) -> Iterator[str]:
    """Where below ``model`` a key of that name belongs."""
    for key, field in model.model_fields.items():
        for member in _members(field.annotation):
            if _is_model(member) and issubclass(member, Model):
                if name in member.model_fields:
                    yield f"{key}.{name}"
                yield from (f"{key}.{path}" for path in _paths_to(name, member))
