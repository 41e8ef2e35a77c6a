"""The job as a whole, with the embedded judges and a tiny model: summaries, files, refusals."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

from configs.schema.data import JudgeTraining
from configs.schema.kinds import Evaluate
from jobs.context import JobResult, JobStopped
from jobs.data import DataError, load_pairs
from jobs.evaluate import run
from jobs.judge_training import fit_judges
from jobs.judges.loading import JudgeError
from jobs.models import ModelError
from tests.jobs import tiny
from tests.jobs.judging import classifier_folder

MEANS = (
    "style",
    "style_share",
    "content_source",
    "content_reference",
    "fluency",
    "inverse_perplexity",
    "joint",
    "chrf",
    "copy_rate",
    "length_ratio",
)
MEASURED = (
    "rows_per_second",
    "latency_p50_seconds",
    "latency_p95_seconds",
    "peak_memory_bytes",
    "model_memory_bytes",
)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A dataset, trained judges, and a tiny model with random weights."""
    folder = tmp_path_factory.mktemp("given")
    dataset = tiny.tiny_dataset(tiny.write_pairs(folder / "pairs.csv", 160), split={"train": 0.8, "test": 0.2})
    training = JudgeTraining(fluency_steps=30, fluency_hidden_size=32, fluency_layers=1)
    fit_judges(
        load_pairs(dataset), training, folder / "judges", seed=1, num_threads=1, report=lambda figures, step: None
    )
    model = tiny.make_model_folder(folder / "model", tiny.make_tokenizer(folder / "tokenizer"))
    return {
        "kind": "evaluate",
        "dataset": dataset.model_dump(),
        "systems": {
            "model": {"model": {"name": str(model)}},
            "copy": {"control": "copy"},
            "delete": {"control": "delete"},
            "reference": {"control": "reference"},
        },
        "judges": {"trained": str(folder / "judges")},
        "decoding": {"num_beams": 1, "max_new_tokens": 8},
        "bootstrap": {"num_resamples": 200},
        "speed": None,
    }


@pytest.fixture(scope="module")
def finished(given: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[JobResult, Path, tiny.Recorder]:
    recorder = tiny.Recorder()
    output = tmp_path_factory.mktemp("output")
    asked = Evaluate.model_validate({**given, "speed": {"rows": 8, "rounds": 2}})
    return run(asked, recorder.context(output)), output, recorder


def figures(result: JobResult) -> dict[tuple[str, str], Any]:
    return {(item.system, item.metric): item for item in result.summaries}


def test_every_system_has_every_mean_with_its_interval(finished: tuple[JobResult, Path, tiny.Recorder]) -> None:
    values = figures(finished[0])
    for system in ("model", "copy", "delete", "reference"):
        for metric in MEANS:
            item = values[system, metric]
            assert item.low <= item.value <= item.high
            assert item.count == 32
        assert values[system, "perplexity_corpus"].value > 1


def test_controls_are_where_they_must_be(finished: tuple[JobResult, Path, tiny.Recorder]) -> None:
    values = figures(finished[0])
    assert values["copy", "content_source"].value == pytest.approx(1)
    assert values["copy", "fluency"].value == pytest.approx(1)
    assert values["reference", "content_reference"].value == pytest.approx(1)
    assert values["reference", "joint"].value > values["copy", "joint"].value
    assert values["delete", "style"].value > values["copy", "style"].value


def test_only_models_are_compared_with_the_controls_and_have_a_cost(
    finished: tuple[JobResult, Path, tiny.Recorder],
) -> None:
    values = figures(finished[0])
    for metric in ("joint_minus_copy", "joint_minus_delete", "parameters", "bytes_on_disk", *MEASURED):
        assert [system for system, name in values if name == metric] == ["model"]
    gain = values["model", "joint_minus_copy"]
    assert gain.value == pytest.approx(values["model", "joint"].value - values["copy", "joint"].value)
    assert gain.low <= gain.value <= gain.high
    assert 0 < values["model", "joint_minus_copy_p_value"].value <= 1


def test_rows_hold_the_texts_and_values_that_the_means_are_made_of(
    finished: tuple[JobResult, Path, tiny.Recorder], given: dict[str, Any]
) -> None:
    result, output, _ = finished
    table = pyarrow.parquet.read_table(output / "scores" / "rows.parquet").to_pandas()
    values = figures(result)
    assert len(table) == 4 * 32
    test = load_pairs(Evaluate.model_validate(given).dataset).test
    for system, rows in table.groupby("system"):
        assert rows["row"].tolist() == list(range(32))
        assert rows["source"].tolist() == [pair.source for pair in test]
        for metric in MEANS:
            assert rows[metric].mean() == pytest.approx(values[system, metric].value)
        assert math.exp(rows["nll"].sum() / rows["num_tokens"].sum()) == pytest.approx(
            values[system, "perplexity_corpus"].value
        )
    copied = table[table["system"] == "copy"]
    assert copied["output"].tolist() == copied["source"].tolist()
    joint = table["style"] * np.clip(table["content_reference"], 0, 1) * table["fluency"]
    np.testing.assert_allclose(table["joint"], joint)


def test_the_scores_file_names_who_judged_and_compares_all_pairs(
    finished: tuple[JobResult, Path, tiny.Recorder],
) -> None:
    result, output, _ = finished
    assert result.artifacts == {"scores": "scores"}
    data = json.loads((output / "scores" / "scores.json").read_text())
    assert all("embedded" in item["name"] and item["identity"] for item in data["judges"].values())
    assert data["gate_is_style_judge"] is False
    assert data["num_rows"] == 32
    assert len(data["comparisons"]) == 6 * len(MEANS)
    assert len(data["summaries"]) == len(result.summaries)
    assert sum(data["statuses"]["model"].values()) == 32


def test_the_table_has_a_line_a_system_and_says_what_it_can_not_mean(
    finished: tuple[JobResult, Path, tiny.Recorder],
) -> None:
    text = (finished[1] / "scores" / "table.md").read_text()
    tables = {part.split("\n")[0]: part.splitlines() for part in text.split("## ")[1:]}
    assert list(tables) == ["Quality", "Wording", "Cost", "Comparisons"]
    first = {name: [line.split("|")[1].strip() for line in table if "|" in line][2:] for name, table in tables.items()}
    assert first["Quality"] == first["Wording"] == ["model", "copy", "delete", "reference"]
    assert first["Cost"] == ["model"]
    assert first["Comparisons"] == ["model − copy", "model − delete"]
    for table in tables.values():
        assert len({line.count("|") for line in table if "|" in line}) == 1
    notes = "\n".join(tables["Quality"])
    assert "alt-profanity-check (embedded)" in notes
    assert "1 by definition" in notes
    assert "one model" not in notes


def test_progress_rises_to_the_end(finished: tuple[JobResult, Path, tiny.Recorder]) -> None:
    recorder = finished[2]
    shares = recorder.values("share_done")
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert recorder.values("rows_scored")[-1] == 32
    assert recorder.values("systems_done")[:4] == [1, 2, 3, 4]
    assert recorder.values("speed_rounds_done")[:2] == [1, 2]


def test_quality_against_speed_is_drawn_where_speed_was_measured(
    finished: tuple[JobResult, Path, tiny.Recorder], given: dict[str, Any], tmp_path: Path
) -> None:
    scores = finished[1] / "scores"
    assert (scores / "figure.png").read_bytes().startswith(b"\x89PNG")
    words = (scores / "figure.svg").read_text()
    for word in ("model (", "copy", "delete", "reference", "rows per second in batches of 32"):
        assert f">{word}" in words
    run(Evaluate.model_validate({**given, "limit": 4}), tiny.Recorder().context(tmp_path))
    assert {file.name for file in (tmp_path / "scores").iterdir()} == {"rows.parquet", "scores.json", "table.md"}


def test_the_rounds_of_the_measurement_are_kept(finished: tuple[JobResult, Path, tiny.Recorder]) -> None:
    speed = json.loads((finished[1] / "scores" / "scores.json").read_text())["speed"]
    assert speed["baseline"] == "model"
    assert len(speed["systems"]["model"]["rates"]) == 2
    assert [len(times) for times in speed["systems"]["model"]["latencies"]] == [8, 8]


def test_the_same_spec_gives_the_same_figures_but_the_speed(
    finished: tuple[JobResult, Path, tiny.Recorder], given: dict[str, Any], tmp_path: Path
) -> None:
    again = run(Evaluate.model_validate(given), tiny.Recorder().context(tmp_path))
    assert list(again.summaries) == [item for item in finished[0].summaries if item.metric not in MEASURED]


def test_a_limit_takes_the_first_rows(given: dict[str, Any], tmp_path: Path) -> None:
    asked = {**given, "systems": {"copy": {"control": "copy"}}, "limit": 5}
    result = run(Evaluate.model_validate(asked), tiny.Recorder().context(tmp_path))
    assert figures(result)["copy", "joint"].count == 5
    rows = pyarrow.parquet.read_table(tmp_path / "scores" / "rows.parquet").to_pylist()
    test = load_pairs(Evaluate.model_validate(asked).dataset).test
    assert [row["source"] for row in rows] == [pair.source for pair in test[:5]]


def test_outputs_that_are_all_empty_have_figures_without_nan(given: dict[str, Any], tmp_path: Path) -> None:
    test = load_pairs(Evaluate.model_validate(given).dataset).test
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"source": pair.source, "output": ""}) + "\n" for pair in test))
    asked = {**given, "systems": {"nothing": {"rows": str(file)}, "copy": {"control": "copy"}}}
    result = run(Evaluate.model_validate(asked), tiny.Recorder().context(tmp_path / "output"))
    values = figures(result)
    assert values["nothing", "joint"].value == values["nothing", "content_source"].value == 0
    assert values["nothing", "joint_minus_copy"].value < 0
    assert ("nothing", "perplexity_median") not in values
    assert all(math.isfinite(item.value) for item in result.summaries)


def test_a_table_of_outputs_that_the_style_judge_gated_says_so(given: dict[str, Any], tmp_path: Path) -> None:
    style = str(classifier_folder(tmp_path / "style", ("toxic",)))
    judges = {**given["judges"], "style": style, "gate": style, "allow_same_judge": True}
    asked = {**given, "judges": judges, "systems": {"copy": {"control": "copy"}}}
    run(Evaluate.model_validate(asked), tiny.Recorder().context(tmp_path / "output"))
    scores = tmp_path / "output" / "scores"
    assert "style is flattered" in (scores / "table.md").read_text()
    assert json.loads((scores / "scores.json").read_text())["gate_is_style_judge"] is True


def test_it_stops_when_told_and_leaves_no_scores(given: dict[str, Any], tmp_path: Path) -> None:
    recorder = tiny.Recorder(stop_after=4)
    with pytest.raises(JobStopped):
        run(Evaluate.model_validate(given), recorder.context(tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("system", "error", "message"),
    [
        ({"model": {"name": "/nowhere/m"}}, ModelError, r"systems\.last: model '/nowhere/m' doesn't exist"),
        ({"rows": "/nowhere/rows.csv"}, DataError, r"systems\.last\.rows = /nowhere/rows\.csv"),
    ],
)
def test_a_system_that_isnt_there_is_told_before_the_first_is_decoded_or_judged(
    given: dict[str, Any], system: dict[str, Any], error: type[ValueError], message: str, tmp_path: Path
) -> None:
    # Judges that can't be used either are loaded later, and so not told of.
    asked = {**given, "systems": {**given["systems"], "last": system}, "judges": {"trained": "/nowhere/judges"}}
    recorder = tiny.Recorder()
    with pytest.raises(error, match=message):
        run(Evaluate.model_validate(asked), recorder.context(tmp_path))
    assert recorder.points == []


def test_wrong_input_is_refused_by_name(given: dict[str, Any], tmp_path: Path) -> None:
    context = tiny.Recorder().context(tmp_path)
    with pytest.raises(JudgeError, match=r"judges\.trained"):
        run(Evaluate.model_validate({**given, "judges": {"trained": str(tmp_path)}}), context)
    ready = tmp_path / "pairs.csv"
    ready.write_text("toxic,neutral,split\na b,c,train\nd e,f,train\n")
    dataset = tiny.tiny_dataset(ready, split={"column": "split"}, validation=0.0).model_dump()
    with pytest.raises(DataError, match="test split is empty"):
        run(Evaluate.model_validate({**given, "dataset": dataset}), context)
