"""The descriptions of the API: true, whole, and readable without a network."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from fastapi.openapi.models import OpenAPI
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from api.schemas import ProblemView
from configs.load import parse_spec, validate_spec
from tests.api.conftest import Api


@pytest.fixture
def document(api: Api) -> dict[str, Any]:
    found: dict[str, Any] = api.as_(None).get("/openapi.json").json()
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def test_the_document_is_openapi_with_valid_schemas_and_no_loose_reference(document: dict[str, Any]) -> None:
    OpenAPI.model_validate(document)
    assert document["openapi"].startswith("3.1")
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    found = set(references(document))
    assert found <= {f"#/components/schemas/{name}" for name in schemas}
    assert {"#/components/schemas/Spec", "#/components/schemas/ProblemView"} <= found


def test_every_route_is_described_with_its_problems(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(ids) == len(set(ids)) == 11
    for path, _, operation in operations(document):
        assert operation["summary"], path
        assert operation["description"], path
        assert operation["tags"], path
        if path == "/v1/health":
            assert "security" not in operation
            continue
        assert operation["security"] == [{"key": []}]
        assert {"401", "422", "429", "503"} <= set(operation["responses"])
        for parameter in operation.get("parameters", []):
            assert parameter["in"] == "path" or parameter["description"], (path, parameter["name"])


def test_the_examples_are_what_they_are_examples_of(document: dict[str, Any]) -> None:
    content = document["paths"]["/v1/runs"]["post"]["requestBody"]["content"]
    for example in content["application/json"]["examples"].values():
        validate_spec(example["value"])
    for example in content["application/yaml"]["examples"].values():
        parse_spec(example["value"])
    for _, _, operation in operations(document):
        for status, answer in operation["responses"].items():
            problem = answer["content"].get("application/problem+json") if "content" in answer else None
            if problem is not None:
                assert ProblemView.model_validate(problem["example"]).status == int(status)


def test_answers_fit_the_schemas_that_describe_them(api: Api, document: dict[str, Any]) -> None:
    client = api.as_("ada")
    made = client.post("/v1/runs", json={"kind": "export", "model": {"name": "someone/student"}}).json()
    wrong = client.post("/v1/runs", json={"kind": "export"}).json()
    for name, value in (
        ("RunDetail", made),
        ("RunPage", client.get("/v1/runs").json()),
        ("EventsView", client.get(f"/v1/runs/{made['id']}/events").json()),
        ("MetricsView", client.get(f"/v1/runs/{made['id']}/metrics").json()),
        ("ArtifactsView", client.get(f"/v1/runs/{made['id']}/artifacts").json()),
        ("ProblemView", wrong),
        ("Spec", made["spec"]),
    ):
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        assert list(Draft202012Validator(schema).iter_errors(value)) == [], name


class Page(HTMLParser):
    """What a browser would load, and whether every tag is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [
            f"{tag} {value}" for name, value in attrs if name == "src" or (tag == "link" and name == "href")
        ]
        if tag == "script":
            self.loaded.append(tag)
        if tag not in {"meta"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_docs_show_every_route_and_load_nothing(api: Api, document: dict[str, Any]) -> None:
    answer = api.as_(None).get("/docs")
    assert answer.headers["content-type"].startswith("text/html")
    page = Page()
    page.feed(answer.text)
    assert (page.loaded, page.open) == ([], [])
    for path, method, operation in operations(document):
        assert f"{method.upper()} {path}" in answer.text
        assert operation["operationId"] in answer.text
