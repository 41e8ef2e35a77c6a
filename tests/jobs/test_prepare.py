"""``prepare``: data, split, tokenizer, judges and dump, each asked for or left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from configs.load import validate_spec
from configs.schema.data import Dataset
from configs.schema.kinds import Prepare
from jobs import prepare
from jobs.context import JobContext, JobStopped
from jobs.data import DataError, load_pairs
from jobs.models import load_tokenizer

SMALL: dict[str, Any] = {
    "kind": "prepare",
    "dataset": {
        "name": "sample",
        "source_column": "toxic",
        "target_column": "neutral",
        "split": {"column": "split"},
        "max_length": 48,
    },
    "sample": {"num_pairs": 300, "num_dump_rows": 20},
}


def run(spec: dict[str, Any], output: Path, *, stop_after: int | None = None) -> dict[str, Any]:
    checked = validate_spec(spec)
    assert isinstance(checked, Prepare)
    asked: list[int] = []

    def should_stop() -> bool:
        asked.append(1)
        return stop_after is not None and len(asked) > stop_after

    output.mkdir(exist_ok=True)
    context = JobContext(output=output, report=lambda figures, step: None, should_stop=should_stop)
    return prepare.run(checked, context).as_dict()


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_the_sample_becomes_a_dataset_and_a_dump(tmp_path: Path) -> None:
    result = run(SMALL, tmp_path / "out")
    assert result["artifacts"] == {"dataset": "dataset", "dump": "dump/dump.csv"}
    splits = load_pairs(Dataset(name=str(tmp_path / "out" / "dataset")))
    counts = {item["metric"]: item["value"] for item in result["summaries"]}
    assert counts == {
        "num_train": len(splits.train),
        "num_validation": len(splits.validation),
        "num_test": len(splits.test),
    }
    assert (tmp_path / "out" / "dump" / "dump.csv").read_text("utf-8").startswith("id,author,timestamp,comment")


def test_the_same_spec_gives_the_same_files(tmp_path: Path) -> None:
    spec = {**SMALL, "tokenizer": {"vocab_size": 500}}
    run(spec, tmp_path / "one")
    run(spec, tmp_path / "two")
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")


def test_a_tokenizer_that_was_asked_for_reads_every_text_back(tmp_path: Path) -> None:
    result = run({**SMALL, "tokenizer": {"vocab_size": 500}}, tmp_path / "out")
    tokenizer = load_tokenizer(str(tmp_path / "out" / result["artifacts"]["tokenizer"]))
    text = "detoxify: the bridge was late again, ask lena"
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


def test_a_file_without_the_column_is_refused_with_the_columns_it_has(tmp_path: Path) -> None:
    file = tmp_path / "pairs.csv"
    file.write_text("a,b\n1,2\n", encoding="utf-8")
    spec = {"kind": "prepare", "dataset": {"name": str(file), "source_column": "toxic", "target_column": "b"}}
    with pytest.raises(DataError, match=r"toxic.*a, b"):
        run(spec, tmp_path / "out")


def test_a_run_that_is_told_to_stop_stops_between_two_parts(tmp_path: Path) -> None:
    with pytest.raises(JobStopped):
        run({**SMALL, "tokenizer": {"vocab_size": 500}}, tmp_path / "out", stop_after=0)
    assert not (tmp_path / "out" / "tokenizer").exists()
