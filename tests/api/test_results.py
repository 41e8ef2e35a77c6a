"""Figures, tables and files of runs."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from api.files import find_file
from cluster.results import Artifact
from cluster.store import Point
from jobs.context import Summary
from tests.api.conftest import Api
from tests.api.specs import evaluate, export, pipeline

SUMMARIES = (
    Summary("style", 0.1, "copy", 0.05, 0.15, 550),
    Summary("joint", 0.05, "copy", 0.04, 0.06, 550),
    Summary("style", 0.95, "student", 0.94, 0.96, 550),
    Summary("joint", math.nan, "student"),
    Summary("rows_per_second", 210.0, "student"),
)


def test_metrics_hold_series_by_name_and_summaries_with_intervals(api: Api) -> None:
    points = tuple(Point(name, step, value) for step, value in ((10, 2.0), (20, math.nan)) for name in ("loss", "ce"))
    run = api.finish(export(), points=points, summaries=(Summary("bytes_on_disk", 1000.0),))
    body = api.as_("ada").get(f"/v1/runs/{run.id}/metrics").json()
    assert [series["name"] for series in body["series"]] == ["ce", "loss"]
    assert body["series"][1]["points"] == [{"step": 10, "value": 2.0}, {"step": 20, "value": None}]
    assert body["summaries"] == [
        {"metric": "bytes_on_disk", "system": "", "value": 1000.0, "low": None, "high": None, "count": None}
    ]
    only = api.as_("ada").get(f"/v1/runs/{run.id}/metrics", params={"name": "loss"}).json()
    assert [series["name"] for series in only["series"]] == ["loss"]


def test_a_long_series_is_thinned_evenly_and_says_how_long_it_was(api: Api) -> None:
    run = api.finish(export(), points=tuple(Point("loss", step, float(step)) for step in range(101)))
    (series,) = api.as_("ada").get(f"/v1/runs/{run.id}/metrics", params={"max_points": 5}).json()["series"]
    assert [point["step"] for point in series["points"]] == [0, 25, 50, 75, 100]
    assert series["num_points"] == 101


def test_a_run_without_figures_has_empty_lists(api: Api) -> None:
    run = api.store.submit(export(), owner="ada")
    body = api.as_("ada").get(f"/v1/runs/{run.id}/metrics").json()
    assert (body["series"], body["summaries"]) == ([], [])


def test_the_table_has_a_row_for_each_system_and_a_column_for_each_metric(api: Api) -> None:
    run = api.finish(evaluate(), summaries=SUMMARIES)
    table = api.as_("ada").get(f"/v1/runs/{run.id}/table").json()
    assert table["columns"] == ["style", "joint", "rows_per_second"]
    assert [row["system"] for row in table["rows"]] == ["copy", "student"]
    copy, student = (row["cells"] for row in table["rows"])
    assert copy["style"] == {
        "metric": "style", "system": "copy", "value": 0.1, "low": 0.05, "high": 0.15, "count": 550,
    }  # fmt: skip
    assert "rows_per_second" not in copy
    assert student["joint"]["value"] is None


def test_the_table_of_a_pipeline_is_that_of_its_evaluate_step(api: Api) -> None:
    steps = {"scores": evaluate()}
    spec = pipeline(steps={"scores": steps["scores"].model_dump(mode="json")})
    road = api.store.submit(spec, owner="ada")
    (step,) = api.store.expand(road.id, steps)
    client = api.as_("ada")
    waiting = client.get(f"/v1/runs/{road.id}/table")
    assert waiting.status_code == 409
    assert step.id in waiting.json()["detail"]
    assert client.get(f"/v1/runs/{api.finish(export()).id}/table").status_code == 404


def folder_run(api: Api) -> str:
    """A run with the artifacts ``model`` (a folder), ``rows`` (a file) and ``lost`` (gone from the disk)."""
    run = api.finish(export(), artifacts={"model": "model", "rows": "dump.csv", "lost": "lost"})
    output = api.output(run)
    (output / "model" / "inner").mkdir(parents=True)
    (output / "model" / "config.json").write_text("{}", "utf-8")
    (output / "model" / "inner" / "weights.bin").write_bytes(bytes(range(256)))
    (output / "dump.csv").write_text("text\nhé\n", "utf-8")
    (output / "secret.txt").write_text("not an artifact", "utf-8")
    (output / "model" / "link.txt").symlink_to(output / "secret.txt")
    return run.id


def test_artifacts_are_listed_with_their_files_and_sizes(api: Api) -> None:
    run_id = folder_run(api)
    found = {item["name"]: item for item in api.as_("ada").get(f"/v1/runs/{run_id}/artifacts").json()["artifacts"]}
    assert [file["path"] for file in found["model"]["files"]] == ["config.json", "inner/weights.bin"]
    assert (found["model"]["is_folder"], found["model"]["num_bytes"]) == (True, 258)
    assert (found["rows"]["is_folder"], found["rows"]["file_name"], found["rows"]["num_files"]) == (
        False,
        "dump.csv",
        1,
    )
    assert found["lost"]["num_files"] == 0


def test_files_come_whole_and_in_ranges_and_never_open_in_a_browser(api: Api) -> None:
    run_id, client = folder_run(api), api.as_("ada")
    answer = client.get(f"/v1/runs/{run_id}/artifacts/model/inner/weights.bin")
    assert answer.content == bytes(range(256))
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["x-content-type-options"] == "nosniff"
    part = client.get(f"/v1/runs/{run_id}/artifacts/rows", headers={"Range": "bytes=0-3"})
    assert (part.status_code, part.content) == (206, b"text")


def test_a_folder_itself_is_a_conflict_that_names_its_files(api: Api) -> None:
    answer = api.as_("ada").get(f"/v1/runs/{folder_run(api)}/artifacts/model")
    assert answer.status_code == 409
    assert "config.json" in answer.json()["detail"]


@pytest.mark.parametrize(
    "path",
    [
        "model/..%2Fsecret.txt",
        "model/../secret.txt",
        "model/inner/%2E%2E/%2E%2E/secret.txt",
        "model/link.txt",
        "model/%2Fetc%2Fpasswd",
        "model//etc/passwd",
        "model/inner",
        "model/nothing.txt",
        "model/%00",
        "model/" + "a" * 300,
        "rows/more",
        "secret.txt",
        "%2E%2E",
        "lost",
        "lost/config.json",
    ],
)
def test_nothing_but_the_files_of_an_artifact_can_be_had(api: Api, path: str) -> None:
    answer = api.as_("root").get(f"/v1/runs/{folder_run(api)}/artifacts/{path}")
    assert answer.status_code == 404
    assert str(api.home) not in answer.text


def test_find_file_follows_no_way_out(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model2").mkdir()
    (tmp_path / "model2" / "other.txt").write_text("x", "utf-8")
    artifact = Artifact("model", str(tmp_path / "model"))
    assert find_file(artifact, "../model2/other.txt") is None
    assert find_file(artifact, str(tmp_path / "model2" / "other.txt")) is None
    (tmp_path / "model" / "way_out").symlink_to(tmp_path / "model2")
    assert find_file(artifact, "way_out/other.txt") is None
    # The storage itself may be behind a link.
    (tmp_path / "storage").symlink_to(tmp_path / "model2")
    assert find_file(Artifact("model", str(tmp_path / "storage")), "other.txt") is not None


def test_a_file_whose_name_is_no_ascii_is_offered_under_its_name(api: Api) -> None:
    run = api.finish(export(), artifacts={"rows": "größe.csv"})
    (api.output(run) / "größe.csv").write_text("x", "utf-8")
    answer = api.as_("ada").get(f"/v1/runs/{run.id}/artifacts/rows")
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''gr%C3%B6%C3%9Fe.csv"
