"""The gate of an export: a model that int8 hurts is refused and leaves nothing, another one passes with figures."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from configs.load import SpecError, validate_spec
from configs.schema.kinds import Export
from configs.schema.models import ModelSource
from jobs import export
from jobs.context import JobContext, JobResult, JobStopped, Summary
from jobs.data import DataError
from jobs.export_gate import GateRefused
from jobs.model_record import read_record
from jobs.models import load_model
from tests.jobs import judging, toy

MAX_DROP = 0.08
"""The toy writes some rows wrong, and int8 some others."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    file = tmp_path_factory.mktemp("pairs") / "pairs.csv"
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["toxic", "neutral"])
        writer.writerows([text, text] for text in toy.sentences(300))
    return {"name": str(file), "source_column": "toxic", "target_column": "neutral", "validation": 0.2}


@pytest.fixture(scope="module")
def judges(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("judges")
    style = judging.classifier_folder(folder / "style", ["toxic", "rude"], problem_type="multi_label_classification")
    content = judging.encoder_folder(folder / "content")
    fluency = judging.language_model_folder(folder / "fluency")
    return {"style": str(style), "content": str(content), "fluency": str(fluency)}


@pytest.fixture(scope="module")
def fragile(copying_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that computes the same as the one it is made of, and that int8 hurts.

    In each row of its feed-forward layers one weight is so large that int8, which scales a row by its largest, rounds
    the others to nothing.
    """
    loaded = load_model(ModelSource(name=str(copying_model)))
    model: Any = loaded.model
    with torch.no_grad():
        for block in (*model.encoder.block, *model.decoder.block):
            layer = block.layer[-1].DenseReluDense
            unit = layer.wo.weight.abs().sum(0).argmin()
            layer.wi.weight[unit] /= 1000
            layer.wo.weight[:, unit] *= 1000
    return toy.save(model, loaded.tokenizer, tmp_path_factory.mktemp("fragile"))


def spec(model: Path, dataset: dict[str, Any], judges: dict[str, str], **changes: Any) -> Export:
    gate = {"dataset": dataset, "judges": judges, "max_drop": MAX_DROP, **changes.pop("gate", {})}
    return Export.model_validate(
        {
            "model": {"name": str(model)},
            "max_length": 48,
            "decoding": {"max_new_tokens": 16},
            "gate": gate,
            **changes,
        }
    )


def run(asked: Export, output: Path, *, stop_after: int = 1000) -> JobResult:
    asked_times: list[None] = []

    def should_stop() -> bool:
        asked_times.append(None)
        return len(asked_times) > stop_after

    return export.run(asked, JobContext(output=output, report=lambda *_: None, should_stop=should_stop))


def figures(result: JobResult) -> dict[tuple[str, str], Summary]:
    return {(item.metric, item.system): item for item in result.summaries}


def test_a_model_that_int8_hurts_is_refused_with_figures_and_remedy_and_nothing_is_published(
    fragile: Path, dataset: dict[str, Any], judges: dict[str, str], tmp_path: Path
) -> None:
    words = r"on 47 validation rows the joint falls from 0\.\d+ to 0\.\d+, by 0\.\d+ \[.*max_drop allows 0\.08; choose"
    with pytest.raises(GateRefused, match=words) as caught:
        run(spec(fragile, dataset, judges), tmp_path)
    assert "choose bfloat16 or float32, or raise gate.max_drop" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_same_model_passes_in_float32_without_any_loss(
    fragile: Path, dataset: dict[str, Any], judges: dict[str, str], tmp_path: Path
) -> None:
    result = run(spec(fragile, dataset, judges, quantization="float32", gate={"max_drop": 0.0}), tmp_path)
    assert figures(result)["gate_joint_difference", "exported"].value == 0


def test_a_sane_model_passes_and_its_figures_are_summaries_and_in_its_record(
    copying_model: Path, dataset: dict[str, Any], judges: dict[str, str], tmp_path: Path
) -> None:
    found = figures(run(spec(copying_model, dataset, judges), tmp_path))
    exported, trained = found["gate_joint", "exported"], found["gate_joint", "trained"]
    difference = found["gate_joint_difference", "exported"]
    assert difference.value == pytest.approx(exported.value - trained.value)
    assert difference.low is not None
    assert difference.high is not None
    assert difference.value >= -MAX_DROP
    assert difference.low <= difference.value <= difference.high
    assert difference.count == 47
    record = read_record(tmp_path / "model")
    assert record is not None
    assert record.export is not None
    gate = record.export["gate"]
    assert gate["difference"]["value"] == difference.value
    assert (gate["max_drop"], gate["num_rows"]) == (MAX_DROP, 47)
    assert gate["judges"] == judges
    assert f"{difference.value:+.4f}" in (tmp_path / "model" / "README.md").read_text(encoding="utf-8")


def test_the_gate_takes_the_first_rows_of_the_validation_split(
    copying_model: Path, dataset: dict[str, Any], judges: dict[str, str], tmp_path: Path
) -> None:
    result = run(spec(copying_model, dataset, judges, gate={"limit": 7, "max_drop": 1.0}), tmp_path)
    assert figures(result)["gate_joint", "trained"].count == 7


def test_a_dataset_without_validation_rows_is_refused(
    copying_model: Path, dataset: dict[str, Any], judges: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"gate\.dataset\.name.*set gate\.dataset\.validation"):
        run(spec(copying_model, {**dataset, "validation": 0.0}, judges), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_job_that_is_asked_to_stop_in_the_gate_leaves_nothing(
    copying_model: Path, dataset: dict[str, Any], judges: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises(JobStopped):
        run(spec(copying_model, dataset, judges), tmp_path, stop_after=2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"gate": {"max_drop": -0.1}}, "gate.max_drop"),
        ({"gate": {"max_drop": 1.5}}, "gate.max_drop"),
        ({"gate": {"limit": 1}}, "gate.limit"),
        ({"gate": {"judges": {}}}, "gate.judges.trained"),
        ({"quantization": "int4"}, "quantization"),
        ({"format": "onnx"}, "format"),
        ({"format": "transformers", "quantization": "int8"}, "quantization"),
        ({"format": "transformers", "quantization": "float16"}, "quantization"),
        ({"format": "transformers", "bundle": True}, "bundle"),
        ({"bundle": "yes"}, "bundle"),
        ({"decoding": {"sampling": {}}}, "decoding.sampling"),
        ({"max_length": 2}, "max_length"),
        ({"segments": "word"}, "segments"),
        ({"card": {"license": "my own"}}, "card.license"),
        ({"card": {"language": "English"}}, "card.language"),
        ({"card": {"title": ""}}, "card.title"),
        ({"card": {"system": "student"}}, "card.system"),
    ],
)
def test_a_wrong_option_of_an_export_is_refused_by_name(changes: dict[str, Any], field: str) -> None:
    gate = {"dataset": {"name": "./pairs.csv"}, "judges": {"trained": "./judges"}, **changes.pop("gate", {})}
    with pytest.raises(SpecError) as caught:
        validate_spec({"kind": "export", "model": {"name": "./model"}, "gate": gate, **changes})
    assert field in {fault.field for fault in caught.value.faults}


def test_a_transformers_folder_is_float32_when_nothing_else_is_said() -> None:
    asked = validate_spec({"kind": "export", "model": {"name": "./model"}, "format": "transformers"})
    assert isinstance(asked, Export)
    assert asked.quantization == "float32"
