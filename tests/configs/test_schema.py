"""The JSON Schema of specs: what an editor or another program is told of every field."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter

from configs.load import dump_spec, json_schema, validate_spec
from configs.schema.base import Model
from configs.schema.examples import EXAMPLES
from configs.schema.kinds import KINDS, AnySpec

SCHEMA = json_schema()
MODELS: dict[str, Any] = SCHEMA["$defs"]


def models(found: type[Model] = Model) -> Iterator[type[Model]]:
    """Every model of the schema."""
    for child in found.__subclasses__():
        if child.__module__.startswith("configs.schema"):
            yield child
            yield from models(child)


def is_free_text(schema: dict[str, Any]) -> bool:
    """Whether a string that the schema doesn't list may stand there."""
    members = schema.get("anyOf", [schema])
    return any(item.get("type") == "string" and not {"enum", "const"} & set(item) for item in members)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_and_every_field_is_described(name: str) -> None:
    assert MODELS[name].get("description")
    silent = [field for field, schema in MODELS[name]["properties"].items() if len(schema.get("description", "")) < 6]
    assert silent == []


def test_the_schema_has_every_model() -> None:
    used = {model.__name__ for model in models() if model.__name__ not in {"SpecBase", "_Trains"}}
    assert set(MODELS) == used


def test_descriptions_are_sentences_and_tell_no_layout_of_ours() -> None:
    for name, model in MODELS.items():
        for field, schema in model["properties"].items():
            text = schema["description"]
            assert text.strip() == text, (name, field)
            assert text.endswith((".", "…")), (name, field, text)


def test_every_field_that_takes_free_text_shows_what_may_stand_there() -> None:
    silent = [
        f"{name}.{field}"
        for name, model in MODELS.items()
        for field, schema in model["properties"].items()
        if is_free_text(schema) and not schema.get("examples")
    ]
    assert silent == []


def test_examples_of_fields_are_values_that_the_field_takes() -> None:
    tried = 0
    for model in models():
        for info in model.model_fields.values():
            for example in info.examples or []:
                adapter: TypeAdapter[Any] = TypeAdapter(info.rebuild_annotation())
                adapter.validate_json(TypeAdapter(Any).dump_json(example))
                tried += 1
    assert tried > 30


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_an_example_that_is_a_spec(kind: str) -> None:
    spec = validate_spec(EXAMPLES[kind])
    assert spec.kind == kind
    assert validate_spec(dump_spec(spec)) == spec
    model = next(item for item in AnySpec.__args__ if item.model_fields["kind"].default == kind)
    assert issubclass(model, BaseModel)
    assert model.model_json_schema()["examples"] == [EXAMPLES[kind]]
    assert MODELS[model.__name__]["examples"] == [EXAMPLES[kind]]
