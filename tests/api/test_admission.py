"""Which specs the API takes from whom."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel

from api.admission import FILES, TEXTS, Roots, check_places, read_spec
from configs.load import SpecError, validate_spec
from configs.parsing import MAX_VALUES
from configs.schema.kinds import AnySpec
from tests.api.conftest import Api
from tests.api.specs import export

PLACES = {
    "SpecBase.output",
    "Dataset.name",
    "ExtraPairs.name",
    "ModelSource.name",
    "ModelSource.tokenizer",
    "RowInput.path",
    "System.rows",
    "Judges.style",
    "Judges.content",
    "Judges.fluency",
    "Judges.trained",
    "Judges.gate",
    "Keep.gate",
    "Keep.content_judge",
    "Training.deepspeed",
    "TeacherCache.folder",
    "Card.results",
}
"""Fields that may name a place; each is checked."""


def string_fields(model: type[BaseModel], seen: set[type[BaseModel]]) -> Iterator[str]:
    """``Class.field`` of every free text below a model."""
    if model in seen:
        return
    seen.add(model)
    for name, info in model.model_fields.items():
        parts = list(flatten(info.annotation))
        if str in parts:
            declaring = next(base for base in reversed(model.__mro__) if name in inspect.get_annotations(base))
            yield f"{declaring.__name__}.{name}"
        for part in parts:
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from string_fields(part, seen)


def flatten(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is dict:
        yield from flatten(get_args(annotation)[1])
    elif get_args(annotation):
        for item in get_args(annotation):
            yield from flatten(item)
    else:
        yield annotation


def test_every_text_of_the_schema_is_known_as_a_place_or_as_harmless() -> None:
    seen: set[type[BaseModel]] = set()
    found = {name for model in AnySpec.__args__ for name in string_fields(model, seen)}
    texts = {f"{model.__name__}.{name}" for model, name in TEXTS}
    assert found == PLACES | texts
    assert {f"{model.__name__}.{name}" for model, name in FILES} <= PLACES


def detoxify(path: str, **values: Any) -> dict[str, Any]:
    return {"kind": "detoxify", "model": {"name": "someone/student"}, "input": {"path": path}, **values}


def faults_for(api: Api, who: str, spec: dict[str, Any]) -> list[dict[str, str]]:
    answer = api.as_(who).post("/v1/runs", json=spec)
    assert answer.status_code in (201, 422), answer.text
    return list(answer.json().get("faults", []))


def test_hub_names_references_and_the_shared_inputs_are_anybodys(api: Api) -> None:
    (api.home / "inputs").mkdir()
    dump = str(api.home / "inputs" / "dump.csv")
    assert faults_for(api, "ada", detoxify(dump)) == []
    steps = {
        "data": {"kind": "prepare", "dataset": {"name": "sample"}, "judges": {}},
        "teacher": {"kind": "finetune", "dataset": {"name": "${steps.data.dataset}"}, "model": {"name": "t5-base"}},
        "scores": {
            "kind": "evaluate",
            "dataset": {"name": "ScaDSAI/ParaDeHate"},
            "systems": {"teacher": {"model": {"name": "${steps.teacher.model}"}}},
            "judges": {"style": "unitary/toxic-bert", "trained": "${steps.data.judges}"},
        },
    }
    assert faults_for(api, "ada", {"kind": "pipeline", "steps": steps}) == []


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "{home}/api-key",
        "{home}/store.sqlite",
        "{home}/storage/../api-key",
        "{home}/inputs/../api-key",
        "{home}/inputs2/dump.csv",
        "{home}/inputs/link.csv",
        "{home}/storage/elsewhere.csv",
        "{home}/storage/runs",
        "s3://bucket/dump.csv",
        "file:///etc/passwd",
    ],
)
def test_other_places_are_an_admins_only(api: Api, path: str) -> None:
    (api.home / "inputs").mkdir()
    (api.home / "api-key").write_text("dx_secret", "utf-8")
    (api.home / "inputs" / "link.csv").symlink_to(api.home / "api-key")
    spec = detoxify(path.format(home=api.home))
    (fault,) = faults_for(api, "ada", spec)
    assert fault["field"] == "input.path"
    assert faults_for(api, "root", spec) == []


def test_results_of_runs_may_be_named_by_their_owner_alone(api: Api) -> None:
    run = api.finish(export(), artifacts={"model": "model"})
    spec = detoxify(str(api.output(run) / "dump.csv"), model={"name": str(api.output(run) / "model")})
    assert faults_for(api, "ada", spec) == []
    assert [fault["field"] for fault in faults_for(api, "bob", spec)] == ["model.name", "input.path"]
    missing = detoxify(str(api.home / "storage" / "runs" / "r-00000000000zzzzzzz" / "a1" / "dump.csv"))
    assert len(faults_for(api, "ada", missing)) == 1


@pytest.mark.parametrize("path", ["dump.csv", "./dump.csv", "../dump.csv", "~/dump.csv", "data/dump"])
def test_a_relative_path_means_nothing_to_the_api_not_even_for_an_admin(api: Api, path: str) -> None:
    (fault,) = faults_for(api, "root", detoxify(path))
    assert "relative" in fault["message"]
    assert "distox submit" in fault["remedy"]


@pytest.mark.parametrize("name", ["data/pairs.csv", "../model", "a/b/c", "./model", "model/../x", "~/model"])
def test_what_is_no_hub_name_counts_as_a_path(name: str, roots: Roots) -> None:
    spec = validate_spec({"kind": "prepare", "dataset": {"name": name}})
    with pytest.raises(SpecError) as raised:
        check_places(spec, roots, is_admin=False, may_read=lambda run_id: True)
    assert [fault.field for fault in raised.value.faults] == ["dataset.name"]


def test_only_an_admin_chooses_where_results_go(api: Api) -> None:
    (api.home / "inputs").mkdir()
    spec = detoxify(str(api.home / "inputs" / "dump.csv"), output=str(api.home / "inputs" / "results"))
    assert [fault["field"] for fault in faults_for(api, "ada", spec)] == ["output"]
    assert faults_for(api, "root", spec) == []


def test_only_an_admin_chooses_where_a_teachers_states_go(api: Api) -> None:
    (api.home / "inputs").mkdir()
    spec = {
        "kind": "distill",
        "dataset": {"name": "a/pairs"},
        "teacher_model": {"name": "t5-base"},
        "student_model": {"name": "t5-small"},
        "teacher_cache": {"folder": str(api.home / "inputs" / "states")},
    }
    assert [fault["field"] for fault in faults_for(api, "ada", spec)] == ["teacher_cache.folder"]
    assert faults_for(api, "root", spec) == []
    (fault,) = faults_for(api, "root", {**spec, "teacher_cache": {"folder": "states"}})
    assert "relative" in fault["message"]


def test_a_cards_words_and_the_names_of_columns_and_systems_may_have_spaces(api: Api) -> None:
    model = {"model": {"name": "${steps.other.model}"}}
    pairs = {"name": "a/pairs", "extra": {"name": "b/pairs", "source_column": "a text", "target_column": ["one, two"]}}
    judges = {"fluency": "gpt2"}
    steps = {
        "other": {"kind": "finetune", "dataset": pairs, "model": {"name": "t5-small"}},
        "scores": {
            "kind": "evaluate",
            "dataset": {"name": "a/pairs"},
            "systems": {"student int8": model},
            "judges": judges,
            "speed": {"baseline": "student int8"},
        },
        "export": {
            "kind": "export",
            **model,
            "prefix": "make it kind: ",
            "card": {"title": "My detoxifier", "results": "${steps.scores.scores}", "system": "student int8"},
        },
    }
    assert faults_for(api, "ada", {"kind": "pipeline", "steps": steps}) == []


def test_steps_of_a_pipeline_are_checked_like_specs_of_their_own(api: Api) -> None:
    spec = {"kind": "pipeline", "steps": {"dump": detoxify("/etc/passwd")}}
    assert [fault["field"] for fault in faults_for(api, "ada", spec)] == ["steps.dump.input.path"]


def test_texts_that_look_like_paths_are_no_places(api: Api) -> None:
    (api.home / "inputs").mkdir()
    path = str(api.home / "inputs" / "dump.csv")
    spec = detoxify(path, name="/etc/passwd", prefix="/fix: ", safety={"blocklist": ["/etc/passwd"]})
    assert faults_for(api, "ada", spec) == []


def test_aliases_that_mean_a_billion_values_are_refused_at_once() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    with pytest.raises(SpecError, match=f"more than {MAX_VALUES:,} values"):
        read_spec("\n".join(lines).encode(), content_type="application/yaml")


def test_a_megabyte_of_yaml_is_refused_before_it_is_read() -> None:
    text = "a: &x 1\nb: *x\n" + "".join(f"key{number}: value\n" for number in range(60_000))
    before = time.process_time()
    with pytest.raises(SpecError, match="is larger than 100,000 bytes"):
        read_spec(text.encode(), content_type="application/yaml")
    assert time.process_time() - before < 0.5


@pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {b: *a}", "&a ? *a\n: x"])
def test_an_alias_that_holds_itself_is_refused(text: str) -> None:
    with pytest.raises(SpecError):
        read_spec(text.encode(), content_type="application/yaml")


@pytest.mark.parametrize(("text", "media"), [("[" * 100_000, "application/json"), ("[" * 5_000, "application/yaml")])
def test_a_body_that_nests_too_deeply_is_refused(text: str, media: str) -> None:
    with pytest.raises(SpecError):
        read_spec(text.encode(), content_type=media)


def test_a_body_that_is_not_utf8_is_refused_by_name() -> None:
    with pytest.raises(SpecError, match="UTF-8"):
        read_spec("name: größe".encode("latin-1"), content_type="application/yaml")


def test_a_key_that_stands_twice_in_json_is_refused_by_name() -> None:
    with pytest.raises(SpecError, match="priority: stands twice"):
        read_spec(b'{"kind": "export", "priority": 1, "priority": 2}', content_type="application/json")
