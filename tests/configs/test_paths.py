"""Relative paths of a spec: which are made absolute, and what is left as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from configs.load import dump_spec, validate_spec
from configs.paths import resolve_paths

NAMES = (
    ("dataset", "name"),
    ("teacher_model", "name"),
    ("student_model", "name"),
    ("student_model", "tokenizer"),
    ("training", "deepspeed"),
)


def distill(**values: dict[str, Any]) -> dict[str, Any]:
    parts: dict[str, Any] = {"dataset": {"name": "a"}, "teacher_model": {"name": "b"}, "student_model": {"name": "c"}}
    return {"kind": "distill", **parts, **{key: {**parts.get(key, {}), **value} for key, value in values.items()}}


def resolved(spec: dict[str, Any], base: Path) -> dict[str, Any]:
    return dump_spec(resolve_paths(validate_spec(spec), base))


@pytest.mark.parametrize(("part", "field"), NAMES)
def test_a_name_that_exists_becomes_absolute(part: str, field: str, tmp_path: Path) -> None:
    (tmp_path / "thing.json").touch()
    spec = distill(**{part: {field: "thing.json"}})
    assert resolved(spec, tmp_path)[part][field] == str(tmp_path / "thing.json")


@pytest.mark.parametrize(("part", "field"), NAMES)
def test_a_name_that_says_it_is_a_path_becomes_absolute_though_nothing_is_there(
    part: str, field: str, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    assert resolved(distill(**{part: {field: "./x.json"}}), base)[part][field] == str(base / "x.json")
    assert resolved(distill(**{part: {field: "../x.json"}}), base)[part][field] == str(tmp_path / "x.json")


def test_a_file_that_isnt_there_is_missed_in_the_submitters_folder(tmp_path: Path) -> None:
    assert resolved(distill(dataset={"name": "gone.TSV"}), tmp_path)["dataset"]["name"] == str(tmp_path / "gone.TSV")
    dump = {"kind": "detoxify", "model": {"name": "m"}, "input": {"path": "gone", "format": "csv"}}
    assert resolved(dump, tmp_path)["input"]["path"] == str(tmp_path / "gone")


@pytest.mark.parametrize("name", ["t5-base", "ScaDSAI/ParaDeHate", "s3://bucket/a.csv", "/srv/a", "${steps.a.model}"])
def test_hub_names_urls_references_and_absolute_paths_are_left(name: str, tmp_path: Path) -> None:
    spec = validate_spec(distill(teacher_model={"name": name}) if "$" not in name else pipeline(name))
    assert resolve_paths(spec, tmp_path) == spec


def pipeline(reference: str) -> dict[str, Any]:
    first = {"kind": "finetune", "dataset": {"name": "x"}, "model": {"name": "y"}}
    return {"kind": "pipeline", "steps": {"a": first, "b": {"kind": "export", "model": {"name": reference}}}}


def test_our_words_are_no_paths_even_where_a_file_has_their_name(tmp_path: Path) -> None:
    for name in ("sample", "embedded", "zero2"):
        (tmp_path / name).mkdir()
    spec = validate_spec(distill(dataset={"name": "sample"}, training={"deepspeed": "zero2"}))
    assert resolve_paths(spec, tmp_path) == spec
    judged = {"kind": "evaluate", "dataset": {"name": "sample"}, "systems": {"copy": {"control": "copy"}}}
    spec = validate_spec({**judged, "judges": {"trained": "/srv/judges"}})
    assert resolve_paths(spec, tmp_path) == spec


def test_text_that_is_no_place_is_left(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    spec = {"kind": "detoxify", "name": "a", "model": {"name": "x"}, "input": {"path": "/y.csv", "text_column": "a"}}
    assert resolved({**spec, "prefix": "a", "safety": {"blocklist": ["a"]}}, tmp_path) == dump_spec(
        validate_spec({**spec, "prefix": "a", "safety": {"blocklist": ["a"]}})
    )


def test_output_is_always_a_path(tmp_path: Path) -> None:
    assert resolved({**distill(), "output": "runs"}, tmp_path)["output"] == str(tmp_path / "runs")
    assert resolved({**distill(), "output": "s3://b/runs"}, tmp_path)["output"] == "s3://b/runs"


def test_a_tilde_is_the_submitters_folder(tmp_path: Path) -> None:
    expected = str(Path("~/x").expanduser())
    assert resolved(distill(teacher_model={"name": "~/x"}), tmp_path)["teacher_model"]["name"] == expected


def test_every_system_and_judge_of_an_evaluation_is_looked_at(tmp_path: Path) -> None:
    systems = {"a": {"model": {"name": "./m"}}, "b": {"rows": "./r.csv"}, "c": {"control": "copy"}}
    judges = dict.fromkeys(["style", "content", "fluency", "trained"], "./j")
    spec = {"kind": "evaluate", "dataset": {"name": "d"}, "systems": systems, "judges": {**judges, "gate": "./g"}}
    found = resolved(spec, tmp_path)
    assert found["systems"]["a"]["model"]["name"] == str(tmp_path / "m")
    assert found["systems"]["b"]["rows"] == str(tmp_path / "r.csv")
    assert {found["judges"][name] for name in judges} == {str(tmp_path / "j")}
    assert found["judges"]["gate"] == str(tmp_path / "g")


def test_the_steps_of_a_pipeline_are_resolved_too(tmp_path: Path) -> None:
    (tmp_path / "dump.csv").touch()
    steps = {"a": {"kind": "detoxify", "model": {"name": "m"}, "input": {"path": "dump.csv"}}}
    found = resolved({"kind": "pipeline", "steps": steps}, tmp_path)
    assert found["steps"]["a"]["input"]["path"] == str(tmp_path / "dump.csv")


def test_the_spec_that_was_given_stays_as_it_was(tmp_path: Path) -> None:
    spec = validate_spec(distill(teacher_model={"name": "./t"}))
    before = dump_spec(spec)
    changed = resolve_paths(spec, tmp_path)
    assert dump_spec(spec) == before != dump_spec(changed)
    assert validate_spec(dump_spec(changed)) == changed
