"""``distox detoxify``: a file and a model become a run, without a spec."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from configs.load import validate_spec
from jobs.context import Summary
from tests.api.command import Distox
from tests.api.conftest import Api
from tests.api.specs import export


@pytest.fixture
def distox(api: Api, url: str) -> Distox:
    return Distox(api, url, "root")


@pytest.fixture
def dump(tmp_path: Path) -> str:
    file = tmp_path / "dump.csv"
    file.write_text("id,comment\n1,you fool\n", "utf-8")
    return str(file)


def test_the_newest_exported_model_rewrites_the_file(api: Api, distox: Distox, dump: str) -> None:
    api.finish(export(), artifacts={"model": "model"})
    newest = api.finish(export(), artifacts={"model": "model"})
    result = distox("detoxify", dump, "--text-column", "comment", "--workers", "2", "--detach")
    assert result.exit_code == 0, result.stderr
    assert f"model: {newest.id}" in result.stderr
    (run,) = api.store.list(kind="detoxify")
    assert run.name == "dump"
    assert run.spec["model"]["name"] == str(api.output(newest) / "model")
    assert (run.spec["input"]["path"], run.spec["input"]["text_column"]) == (dump, "comment")
    assert run.spec["resources"]["num_workers"] == 2


def test_at_its_end_the_file_is_fetched_and_its_rows_are_counted(
    api: Api, distox: Distox, dump: str, tmp_path: Path
) -> None:
    api.finish(export(), artifacts={"model": "model"})
    counts = (Summary("rows", 3.0), Summary("rows_rewritten", 2.0), Summary("rows_flagged", 1.0))
    files = {"dump.detoxified.csv": b"id,comment,detoxified,distox_status\n1,you fool,you,flagged\n"}
    with api.driver(files, artifacts={"rows": "dump.detoxified.csv"}, summaries=counts):
        result = distox("detoxify", dump, "--text-column", "comment", "--to", str(tmp_path / "out"))
    assert result.exit_code == 0, result.stderr
    assert "3 rows: 2 rewritten, 1 flagged; look at the flagged ones" in result.stdout
    assert (tmp_path / "out" / "dump.detoxified.csv").read_text("utf-8").endswith("you fool,you,flagged\n")


def test_a_model_is_a_run_or_a_folder(api: Api, distox: Distox, dump: str, tmp_path: Path) -> None:
    run = api.finish(export(), artifacts={"model": "model"})
    assert distox("detoxify", dump, "--model", run.id, "--detach").exit_code == 0
    assert distox("detoxify", dump, "--model", str(tmp_path), "--detach").exit_code == 0
    names = {item.spec["model"]["name"] for item in api.store.list(kind="detoxify")}
    assert names == {str(api.output(run) / "model"), str(tmp_path)}


def test_a_printed_spec_is_one_that_can_be_submitted(api: Api, distox: Distox, dump: str) -> None:
    run = api.finish(export(), artifacts={"model": "model"})
    result = distox("detoxify", dump, "--text-column", "comment", "--print-spec")
    assert result.exit_code == 0, result.stderr
    data = yaml.safe_load(result.stdout)
    assert data["model"] == {"name": f"${{runs.{run.id}.model}}"}
    assert validate_spec(data).kind == "detoxify"
    assert api.store.list(kind="detoxify") == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.csv"], "nowhere.csv: no such file"),
        (["{dump}", "--to", "{there}"], "is there already"),
        (["{dump}"], "no run has exported a model yet"),
        (["{dump}", "--model", "student"], "neither a folder nor a run"),
        (["{dump}", "--model", "r-0000000000000000zz"], "names no run"),
    ],
)
def test_what_cannot_work_is_refused_with_the_remedy(
    api: Api, distox: Distox, dump: str, arguments: list[str], words: str
) -> None:
    there = Path(dump).parent / "there"
    there.mkdir()
    (there / "dump.detoxified.csv").touch()
    result = distox("detoxify", *[item.format(dump=dump, there=there) for item in arguments])
    assert result.exit_code == 2
    assert words in result.stderr
    assert api.store.list() == []
