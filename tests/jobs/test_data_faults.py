"""What somebody is told whose dataset is wrong, or who names a hub's; the datasets that are right are in test_data."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from configs.schema.data import Dataset
from jobs.data import DataError, load_pairs
from tests.jobs.test_data import FORMATS, as_parquet, dataset, rows, split, write

# -- what a wrong dataset is told


def refusal(asked: Dataset) -> str:
    with pytest.raises(DataError) as caught:
        load_pairs(asked)
    message = str(caught.value)
    assert "\n" not in message, "one line"
    return message


def test_a_missing_file_is_named_with_the_one_that_may_be_meant(tmp_path: Path) -> None:
    write(tmp_path / "comments.csv", "toxic,neutral\na,b\n")
    message = refusal(dataset(tmp_path / "coments.csv"))
    assert f"dataset.name = {tmp_path / 'coments.csv'}: no such file" in message
    assert f"did you mean {tmp_path / 'comments.csv'}?" in message
    assert "no such file; check the path" in refusal(dataset(tmp_path / "nowhere" / "rows.csv"))


@pytest.mark.parametrize("name", ["./" + "x" * 300, "/" + "y/" * 3000, "./zero\0byte"])
def test_a_name_that_no_file_can_have_is_a_missing_file(name: str) -> None:
    assert "no such file" in refusal(dataset(name))


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.jsonl", "rows.parquet"])
def test_a_file_of_no_bytes_is_empty(name: str, tmp_path: Path) -> None:
    assert "the file is empty" in refusal(dataset(write(tmp_path / name, "")))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows.csv", "toxic,neutral\n"),
        ("rows.csv", "toxic,neutral"),
        ("rows.csv", "toxic,neutral\n,\n,b\n"),
        ("rows.tsv", "\n\n"),
        ("rows.jsonl", "\n\n"),
        ("rows.jsonl", '{"toxic": "a", "neutral": ""}\n'),
    ],
)
def test_a_file_without_a_pair_is_refused(name: str, text: str, tmp_path: Path) -> None:
    assert "no pair in it" in refusal(dataset(write(tmp_path / name, text)))


def test_a_parquet_file_without_rows_is_refused(tmp_path: Path) -> None:
    columns = {"toxic": pyarrow.array([], "string"), "neutral": pyarrow.array([], "string")}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "rows.parquet")
    assert "no pair in it" in refusal(dataset(tmp_path / "rows.parquet"))


@pytest.mark.parametrize("name", FORMATS)
def test_a_missing_column_is_named_with_those_there_are(name: str, tmp_path: Path) -> None:
    path = FORMATS[name](tmp_path / name)
    source = refusal(dataset(path, source_column="toxik"))
    assert "dataset.source_column = 'toxik'" in source
    assert "did you mean 'toxic'? it has toxic, neutral" in source
    target = refusal(dataset(path, target_column=("neutral", "other")))
    assert "dataset.target_column = 'other'" in target
    assert "did you mean" not in target
    column = refusal(dataset(path, split={"column": "part"}))
    assert "dataset.split.column = 'part'" in column


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("rows.csv", "toxic,neutral\nd\u00e9j\u00e0,vu\n".encode("latin-1"), "not UTF-8"),
        ("rows.csv", b'toxic,neutral\n"a,b\nc,d\n', "check its quoting"),
        ("rows.tsv", b'toxic\tneutral\n"a" b\tc\n', "check its quoting"),
        ("rows.jsonl", b'{"toxic": "a", "neutral": "b"}\n{"toxic"\n', "line 2 is not JSON"),
        ("rows.jsonl", b"[" * 200_000, "line 1 is not JSON"),
        ("rows.jsonl", b'["toxic"]\n', "line 1 is no JSON object"),
        ("rows.jsonl", b'{"toxic": "\\ud83d", "neutral": "b"}\n', "line 1 holds half a character"),
        ("rows.parquet", b"PAR1 not at all", "not a whole Parquet file"),
        ("rows.xlsx", b"PK", "unknown ending '.xlsx'; use .csv, .tsv, .jsonl, .parquet"),
        ("rows", b"toxic,neutral\n", "unknown ending ''"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_refused(name: str, content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    message = refusal(dataset(tmp_path / name))
    assert f"dataset.name = {tmp_path / name}" in message
    assert told in message


def test_a_parquet_file_that_was_cut_or_damaged_is_refused(tmp_path: Path) -> None:
    content = as_parquet(tmp_path / "rows.parquet").read_bytes()
    (tmp_path / "rows.parquet").write_bytes(content[: len(content) // 2])
    assert "not a whole Parquet file" in refusal(dataset(tmp_path / "rows.parquet"))
    (tmp_path / "rows.parquet").write_bytes(content[:4] + b"\xff" * 60 + content[64:])
    assert "not a whole Parquet file" in refusal(dataset(tmp_path / "rows.parquet"))


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "rows.csv", "toxic,neutral\na,b\n")

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refused)  # root may read every file
    assert "can't be read (Permission denied)" in refusal(dataset(path))


def test_a_folder_that_was_not_prepared_is_refused(tmp_path: Path) -> None:
    assert "no dataset.json in this folder" in refusal(dataset(tmp_path))


# -- hubs


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import datasets

    folder = tmp_path / "cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
    return folder


@pytest.mark.usefixtures("cache")
def test_a_hub_that_cannot_be_reached_is_said_in_seconds_with_the_embedded_corpus(
    closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{closed_port}")
    started = time.monotonic()
    message = refusal(dataset("ScaDSAI/ParaDeHate"))
    assert time.monotonic() - started < 5
    assert "dataset.name = 'ScaDSAI/ParaDeHate': not a local file, and the hub can't be reached" in message
    assert "use the embedded corpus: name: sample" in message


@pytest.mark.usefixtures("cache")
def test_the_rows_of_all_splits_of_a_hub_dataset_are_split_by_distinct_source(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[str] = []

    def load_dataset(name: str) -> Any:
        asked.append(name)
        names = {"train": rows(60), "test": rows(20, start=50)}
        return datasets.DatasetDict({key: datasets.Dataset.from_list(value) for key, value in names.items()})

    monkeypatch.setattr("jobs.hub.is_hub_reachable", lambda: True)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert load_pairs(dataset("owner/pairs")) == split(rows(70))
    assert asked == ["owner/pairs"]


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("kind", ["missing", "broken", "cut off"])
def test_what_the_hub_does_not_give_is_said_in_one_line(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    import httpx

    errors = {
        "missing": datasets.exceptions.DatasetNotFoundError("no such\ndataset"),
        "broken": datasets.exceptions.DatasetGenerationError("bad rows"),
        "cut off": httpx.ReadTimeout("slow"),
    }

    def load_dataset(name: str) -> Any:
        raise errors[kind]

    monkeypatch.setattr("jobs.hub.is_hub_reachable", lambda: True)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert "the hub doesn't give it" in refusal(dataset("owner/pairs"))


def test_a_hub_dataset_that_was_loaded_before_needs_no_network(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    from huggingface_hub import constants

    builder = write(cache.parent / "rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows(30)))
    datasets.load_dataset("json", data_files=str(builder), cache_dir=str(cache))
    written = next((cache / "json").glob("default-*/*/*"))
    kept = cache / "owner___my_pairs" / "default" / "0.0.0" / written.name
    kept.mkdir(parents=True)
    for file in written.iterdir():
        (kept / file.name.replace("json-", "my_pairs-")).write_bytes(file.read_bytes())
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    assert load_pairs(dataset("owner/MyPairs")) == split(rows(30))
