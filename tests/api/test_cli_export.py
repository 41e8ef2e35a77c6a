"""``distox export``: a run or a folder becomes an export, without a spec."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from configs.load import validate_spec
from configs.schema.kinds import Export
from jobs.context import Summary
from tests.api.command import Distox
from tests.api.conftest import Api
from tests.api.specs import export


@pytest.fixture
def distox(api: Api, url: str) -> Distox:
    return Distox(api, url, "root")


FILES = {"model/model.bin": b"weights", "bundle.zip": b"zip"}
FIGURES = {"parameters": 5e6, "bytes_on_disk": 6e6, "bundle_zip_bytes": 4e6, "bundle_peak_bytes": 9e7}


@pytest.mark.parametrize(
    ("options", "file", "content"), [(["--bundle"], "bundle.zip", b"zip"), ([], "model/model.bin", b"weights")]
)
def test_at_its_end_the_bundle_or_the_model_is_fetched(
    api: Api, distox: Distox, tmp_path: Path, options: list[str], file: str, content: bytes
) -> None:
    figures = tuple(Summary(name, value) for name, value in FIGURES.items())
    with api.driver(FILES, artifacts={"model": "model", "bundle_zip": "bundle.zip"}, summaries=figures):
        result = distox("export", str(tmp_path), *options, "--to", str(tmp_path / "out"))
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "out" / file).read_bytes() == content
    assert "5,000,000 parameters, 6.0 MB, bundle 4.0 MB, 90 MB of memory" in result.stdout


def test_the_options_are_those_of_the_spec(api: Api, distox: Distox, tmp_path: Path) -> None:
    options = ["--quantization", "bfloat16", "--bundle", "--license", "apache-2.0", "--detach"]
    assert distox("export", str(tmp_path), *options).exit_code == 0
    (run,) = api.store.list(kind="export")
    spec = validate_spec(run.spec)
    assert isinstance(spec, Export)
    assert (spec.model.name, spec.quantization, spec.bundle) == (str(tmp_path), "bfloat16", True)
    assert spec.card.license == "apache-2.0"


def test_a_printed_spec_is_one_that_can_be_submitted(api: Api, distox: Distox) -> None:
    run = api.finish(export(), artifacts={"model": "model"})
    result = distox("export", run.id, "--format", "transformers", "--print-spec")
    assert result.exit_code == 0, result.stderr
    spec = validate_spec(yaml.safe_load(result.stdout))
    assert isinstance(spec, Export)
    assert (spec.format, spec.quantization) == ("transformers", "float32")
    assert api.store.list(kind="export") == [run]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["student"], "neither a folder nor a run"),
        (["{folder}", "--to", "{there}"], "is there already"),
        (["{folder}", "--format", "transformers", "--bundle"], "use format: ctranslate2"),
        (["{folder}", "--format", "transformers", "--quantization", "int8"], "use float32 or bfloat16"),
        (["{folder}", "--license", "my own"], "card.license"),
    ],
)
def test_what_cannot_work_is_refused_with_the_remedy(
    api: Api, distox: Distox, tmp_path: Path, arguments: list[str], words: str
) -> None:
    (tmp_path / "there" / "model").mkdir(parents=True)
    result = distox("export", *[item.format(folder=tmp_path, there=tmp_path / "there") for item in arguments])
    assert result.exit_code == 2
    assert words in result.stderr
    assert api.store.list() == []
