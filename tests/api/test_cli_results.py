"""``distox metrics`` and ``distox artifacts``: what runs leave behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from api.cli.scores import DIFFERENCES, OTHERS, TABLES
from cluster.store import Point
from jobs.context import Summary
from tests.api.command import Distox
from tests.api.conftest import Api
from tests.api.specs import evaluate, export


@pytest.fixture
def distox(api: Api, url: str) -> Distox:
    return Distox(api, url, "ada")


def test_metrics_shows_an_evaluation_as_a_table_with_intervals(api: Api, distox: Distox) -> None:
    summaries = (Summary("joint", 0.05, "copy", 0.04, 0.06, 550), Summary("joint", 0.7, "student", 0.69, 0.71, 550))
    run = api.finish(evaluate(), summaries=summaries, points=(Point("systems_done", 1, 1.0),))
    shown = distox("metrics", run.id).stdout
    assert "0.050" in shown
    assert "0.040–0.060" in shown
    assert "student" in shown
    assert "systems_done" in shown
    assert json.loads(distox("metrics", run.id, "--json").stdout)["summaries"][1]["value"] == 0.7


SYSTEMS = ("copy", "delete", "reference", "teacher", "student without KD", "student")
MEANS = [metric for title in ("quality", "wording") for metric in TABLES[title]]
COSTS = {
    "rows_per_second": 344.0,
    "latency_p50_seconds": 0.0051,
    "latency_p95_seconds": 0.0093,
    "speedup": 1.42,
    "latency_speedup": 1.3,
    "parameters": 222_903_552.0,
    "bytes_on_disk": 891_600_000.0,
    "model_memory_bytes": 1_210_000_000.0,
    "peak_memory_bytes": 1_620_000_000.0,
    "memory_ratio": 0.27,
}


def evaluation(api: Api) -> str:
    """A whole one, of six systems."""
    figures = [Summary(metric, 0.8666, name, 0.8551, 0.8789, 550) for name in SYSTEMS for metric in MEANS]
    figures += [Summary(metric, value, name) for name in SYSTEMS[3:] for metric, value in COSTS.items()]
    figures += [
        Summary("joint_minus_student without KD", -0.0012, "student", -0.004, 0.002, 550),
        Summary("joint_minus_student without KD_p_value", 0.41, "student", count=550),
        Summary("a_figure_of_tomorrow", 7.5, "student"),
    ]
    return api.finish(evaluate(), summaries=tuple(figures)).id


def test_an_evaluation_fits_100_columns_and_shows_every_figure_in_its_unit(api: Api, distox: Distox) -> None:
    shown = distox("metrics", evaluation(api)).stdout
    assert max(len(line) for line in shown.splitlines()) <= 100
    for words in ("0.867", "0.855–0.879", "344", "5.1 ms", "222,903,552", "891.6 MB", "1,620 MB", "tomorrow", "7.500"):
        assert words in shown
    lines = [line.split() for line in shown.splitlines() if "-0.001" in line]
    assert lines == [["student", "student", "without", "KD", "-0.001", "-0.004", "to", "+0.002", "0.410"]]
    for title in (*TABLES, OTHERS, DIFFERENCES):
        assert title in shown


def test_wide_is_one_table_that_nothing_wraps(api: Api, distox: Distox) -> None:
    lines = [line for line in distox("metrics", evaluation(api), "--wide").stdout.splitlines() if line.strip()]
    assert len(lines) == 2 + len(SYSTEMS)
    assert "joint minus student without KD p value" in lines[1]
    assert lines[-1].count("0.8666 [0.8551, 0.8789]") == len(MEANS)


def test_metrics_of_one_name_shows_its_points(api: Api, distox: Distox) -> None:
    run = api.finish(export(), points=tuple(Point("loss", step, 1 / step) for step in (10, 20)))
    lines = distox("metrics", run.id, "--name", "loss").stdout.splitlines()
    assert [line.split() for line in lines[-2:]] == [["10", "0.1"], ["20", "0.05"]]


def test_a_live_figure_that_is_not_there_is_said_with_those_that_are(api: Api, distox: Distox) -> None:
    run = api.finish(export(), points=(Point("loss", 1, 1.0), Point("ce", 1, 1.0)))
    result = distox("metrics", run.id, "--name", "los")
    assert result.exit_code == 2
    assert result.stderr == f"distox: {run.id} has no live figure los; it has: ce, loss\n"


def test_a_figure_that_was_told_once_and_is_final_is_shown_once(api: Api, distox: Distox) -> None:
    points = (Point("num_train", 1, 103.0), Point("loss", 1, 2.0), Point("loss", 2, 1.0))
    run = api.finish(export(), points=points, summaries=(Summary("num_train", 103.0), Summary("loss", 1.0)))
    shown = distox("metrics", run.id).stdout
    assert shown.count("num_train") == 1
    assert shown.count("loss") == 2


def test_a_run_in_the_place_of_a_command_is_told_what_may_be_done_with_it(distox: Distox) -> None:
    result = distox("artifacts", "r-00000000000zzzzzzz")
    assert result.exit_code == 2
    words = " ".join(result.stderr.replace("│", " ").split())
    assert "`distox artifacts list r-00000000000zzzzzzz` or `distox artifacts download r-00000000000zzzzzzz" in words


def test_metrics_of_a_run_without_figures_says_so(api: Api, distox: Distox) -> None:
    assert distox("metrics", api.store.submit(export(), owner="ada").id).stdout == "no figures yet\n"


def test_artifacts_are_listed_and_downloaded_as_they_were(api: Api, distox: Distox, tmp_path: Path) -> None:
    run = api.finish(export(), artifacts={"model": "model", "rows": "dump.csv"})
    output = api.output(run)
    (output / "model" / "inner").mkdir(parents=True)
    (output / "model" / "config.json").write_text("{}", "utf-8")
    (output / "model" / "inner" / "w.bin").write_bytes(b"1234")
    (output / "dump.csv").write_text("text\n", "utf-8")
    listed = distox("artifacts", "list", run.id).stdout.splitlines()
    assert [line.split() for line in listed] == [
        ["run", "artifact", "files", "bytes"],
        [run.id, "model", "2", "6"],
        [run.id, "rows", "1", "5"],
    ]
    to = tmp_path / "new" / "folder"
    for name in ("model", "rows"):
        result = distox("artifacts", "download", run.id, name, "--to", str(to))
        assert result.exit_code == 0, result.stderr
    found = {str(file.relative_to(to)): file.read_bytes() for file in to.rglob("*") if file.is_file()}
    assert found == {"model/config.json": b"{}", "model/inner/w.bin": b"1234", "dump.csv": b"text\n"}


def test_an_artifact_that_is_not_there_is_said_with_those_that_are(api: Api, distox: Distox, tmp_path: Path) -> None:
    run = api.finish(export(), artifacts={"model": "model"})
    result = distox("artifacts", "download", run.id, "mode")
    assert result.exit_code == 2
    assert "it has: model" in result.stderr


def test_a_folder_that_can_not_be_written_is_one_line(api: Api, distox: Distox, tmp_path: Path) -> None:
    run = api.finish(export(), artifacts={"rows": "dump.csv"})
    (api.output(run) / "dump.csv").write_text("text\n", "utf-8")
    (tmp_path / "file").write_text("", "utf-8")
    result = distox("artifacts", "download", run.id, "rows", "--to", str(tmp_path / "file" / "folder"))
    assert result.exit_code == 1
    assert "can't be written" in result.stderr
