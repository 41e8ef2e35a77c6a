"""Pairs from files and prepared folders, and the split by distinct source."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.schema.data import Dataset
from jobs.data import SPLITS, DataError, Pair, PairSplits, load_pairs, read_pairs, split_rows, write_pairs

PARADETOX = Path(__file__).parents[3] / "shared" / "data" / "paradetox.tsv"
NEUTRAL = ("neutral1", "neutral2", "neutral3")

Row = Mapping[str, Any]


def dataset(name: object = "rows", **changes: Any) -> Dataset:
    values = {"name": str(name), "source_column": "toxic", "target_column": "neutral", **changes}
    return Dataset.model_validate(values)


def rows(number: int, *, start: int = 0) -> list[dict[str, str]]:
    return [{"toxic": f"rude {n}", "neutral": f"kind {n}"} for n in range(start, start + number)]


def split(given_rows: Sequence[Row], **changes: Any) -> PairSplits:
    return split_rows(given_rows, dataset(**changes), origin="rows")


def parts(splits: PairSplits) -> dict[str, tuple[Pair, ...]]:
    return {name: getattr(splits, name) for name in SPLITS}


def sources(splits: PairSplits) -> dict[str, list[str]]:
    return {name: [pair.source for pair in part] for name, part in parts(splits).items()}


def every_pair(splits: PairSplits) -> set[Pair]:
    return {pair for part in parts(splits).values() for pair in part}


def write(path: Path, text: str, *, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


# -- the split


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abcdefghijk"), st.text(alphabet="xyz ", max_size=3)), min_size=1, max_size=40),
    st.integers(0, 1000),
    st.sampled_from((0.0, 0.05, 0.5)),
)
def test_every_source_is_in_one_split_with_all_its_rewrites(
    texts: list[tuple[str, str]], seed: int, validation: float
) -> None:
    expected: dict[str, list[str]] = {}
    for source, target in texts:
        if target.strip():
            expected.setdefault(source, []).append(target.strip())
    given_rows = [{"toxic": source, "neutral": target} for source, target in texts]
    changes = {"split": {"train": 0.7, "test": 0.3, "seed": seed}, "validation": validation}
    if not expected:
        with pytest.raises(DataError, match="no pair in it"):
            split(given_rows, **changes)
        return
    splits = split(given_rows, **changes)
    found = [pair for part in parts(splits).values() for pair in part]
    assert len(found) == len({pair.source for pair in found})
    assert {pair.source: list(pair.targets) for pair in found} == {
        source: list(dict.fromkeys(targets)) for source, targets in expected.items()
    }


def test_the_shares_are_kept_and_validation_comes_out_of_train() -> None:
    splits = split(rows(200), split={"train": 0.8, "test": 0.2}, validation=0.25)
    assert {name: len(part) for name, part in parts(splits).items()} == {"train": 120, "validation": 40, "test": 40}


def test_shares_below_one_leave_the_rest_unused() -> None:
    splits = split(rows(100), split={"train": 0.5, "test": 0.1}, validation=0)
    assert {name: len(part) for name, part in parts(splits).items()} == {"train": 50, "validation": 0, "test": 10}


def test_the_split_depends_on_the_seed_and_not_on_the_order_of_the_rows() -> None:
    splits = split(rows(100))
    assert split(rows(100)[::-1]) == splits
    assert split(rows(100), split={"seed": 43}) != splits


def test_the_test_split_does_not_depend_on_how_much_is_validation() -> None:
    assert split(rows(100), validation=0.4).test == split(rows(100), validation=0).test


def test_a_limit_draws_that_many_sources_and_the_same_ones_each_time() -> None:
    splits = split(rows(300), limit=100)
    assert sum(len(part) for part in parts(splits).values()) == 100
    assert split(rows(300), limit=100) == splits
    drawn = {int(pair.source.split()[1]) for pair in every_pair(splits)}
    assert max(drawn) > 200, "the head of the file was taken instead of a draw"


def test_text_is_compared_exactly_once_its_ends_are_stripped() -> None:
    splits = split(
        [
            {"toxic": " a ", "neutral": "1"},
            {"toxic": "a\n", "neutral": " 2"},
            {"toxic": "A", "neutral": "3"},
            {"toxic": "a", "neutral": "2"},
        ]
    )
    assert every_pair(splits) == {Pair("a", ("1", "2")), Pair("A", ("3",))}


def test_rows_without_a_source_or_a_rewrite_are_left_out() -> None:
    given_rows: list[dict[str, Any]] = [
        {"toxic": "", "neutral": "a"},
        {"toxic": None, "neutral": "a"},
        {"toxic": "b", "neutral": "  "},
        {"toxic": "c", "neutral": None},
        {"toxic": 7, "neutral": "a"},
        {"toxic": "d", "neutral": "e"},
    ]
    assert every_pair(split(given_rows)) == {Pair("d", ("e",))}


# -- a split column


def with_split(names: Sequence[object]) -> list[dict[str, Any]]:
    return [{**row, "split": name} for row, name in zip(rows(len(names)), names, strict=True)]


def test_a_split_column_is_taken_as_it_is() -> None:
    splits = split(with_split(["test", "train", "validation", "train"]), split={"column": "split"}, validation=0.5)
    assert sources(splits) == {"train": ["rude 1", "rude 3"], "validation": ["rude 2"], "test": ["rude 0"]}


def test_a_split_column_without_validation_gives_a_share_of_train() -> None:
    splits = split(with_split(["train"] * 20 + ["test"] * 5), split={"column": "split"}, validation=0.25)
    assert {name: len(part) for name, part in parts(splits).items()} == {"train": 15, "validation": 5, "test": 5}
    assert {pair.source for pair in splits.test} == {f"rude {n}" for n in range(20, 25)}


def test_a_source_in_two_splits_stays_in_the_first_and_a_warning_counts_it(caplog: pytest.LogCaptureFixture) -> None:
    given_rows = [
        {"toxic": "a", "neutral": "1", "split": "test"},
        {"toxic": "b", "neutral": "2", "split": "train"},
        {"toxic": "a", "neutral": "3", "split": "train"},
    ]
    with caplog.at_level(logging.WARNING):
        splits = split(given_rows, split={"column": "split"}, validation=0)
    assert parts(splits) == {"train": (Pair("b", ("2",)),), "validation": (), "test": (Pair("a", ("1", "3")),)}
    assert [record.getMessage() for record in caplog.records] == [
        "rows: 1 sources are in several splits; each stays in its first alone"
    ]


@pytest.mark.parametrize("name", ["dev", "", None, 3])
def test_an_unknown_name_in_the_split_column_is_refused_with_those_allowed(name: object) -> None:
    with pytest.raises(DataError, match="use train, validation, test"):
        split(with_split(["train", name]), split={"column": "split"})


def test_a_limit_on_a_ready_split_draws_from_each_of_its_parts() -> None:
    names = ["train"] * 160 + ["validation"] * 20 + ["test"] * 20
    splits = split(with_split(names), split={"column": "split"}, limit=100)
    assert {name: len(part) for name, part in parts(splits).items()} == {"train": 80, "validation": 10, "test": 10}
    assert splits.test != split(with_split(names), split={"column": "split"}).test[:10]


# -- files

CELLS = [
    ("plain", "plainly"),
    ("comma, and\ttab", 'said "so"'),
    ("two\nlines", "one line"),
    ("ünïcode → ☂", "日本"),
]


def as_delimited(path: Path, delimiter: str) -> Path:
    import csv

    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, delimiter=delimiter).writerows([("toxic", "neutral"), *CELLS])
    return path


def as_jsonl(path: Path) -> Path:
    lines = [json.dumps({"toxic": source, "neutral": target}) for source, target in CELLS]
    return write(path, "\n".join([*lines, "", ""]))


def as_parquet(path: Path) -> Path:
    columns = {"toxic": [source for source, _ in CELLS], "neutral": [target for _, target in CELLS]}
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


FORMATS: dict[str, Callable[[Path], Path]] = {
    "rows.csv": lambda path: as_delimited(path, ","),
    "rows.TSV": lambda path: as_delimited(path, "\t"),
    "rows.jsonl": as_jsonl,
    "rows.parquet": as_parquet,
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_pairs_and_split(name: str, tmp_path: Path) -> None:
    splits = load_pairs(dataset(FORMATS[name](tmp_path / name)))
    assert every_pair(splits) == {Pair(source, (target,)) for source, target in CELLS}
    assert splits == split([{"toxic": source, "neutral": target} for source, target in CELLS])


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", "toxic,neutral\na,b\n", encoding="utf-8-sig")
    assert every_pair(load_pairs(dataset(path))) == {Pair("a", ("b",))}


def test_a_cell_may_be_longer_than_the_csv_module_allows_by_itself(tmp_path: Path) -> None:
    long = "word " * 40_000
    path = write(tmp_path / "rows.csv", f"toxic,neutral\n{long},b\n")
    assert every_pair(load_pairs(dataset(path))) == {Pair(long.strip(), ("b",))}


def test_a_line_of_jsonl_may_leave_out_an_empty_column(tmp_path: Path) -> None:
    lines = [{"toxic": "a", "neutral1": "b"}, {"toxic": "c", "neutral1": "d", "neutral2": "e"}]
    path = write(tmp_path / "rows.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    splits = load_pairs(dataset(path, target_column=("neutral1", "neutral2")))
    assert every_pair(splits) == {Pair("a", ("b",)), Pair("c", ("d", "e"))}


@pytest.fixture
def paradetox() -> Path:
    if not PARADETOX.is_file() and os.environ.get("CI") != "true":
        pytest.skip("needs ../shared/data/paradetox.tsv")
    return PARADETOX


def test_paradetox_is_read_whole_with_every_rewrite(paradetox: Path) -> None:
    splits = load_pairs(dataset(paradetox, target_column=NEUTRAL))
    pairs = every_pair(splits)
    assert len(pairs) == 11_927
    assert {len(pair.targets) for pair in pairs} == {1, 2, 3}
    assert sum(len(pair.targets) for pair in pairs) == 19_230, "of 19,743, those alike for one comment are one"
    assert (len(splits.train) + len(splits.validation), len(splits.test)) == (10_734, 1_193)
    assert any("\n" in pair.source or any("\n" in text for text in pair.targets) for pair in pairs)


def test_paradetox_is_read_again_as_the_same_split_from_a_prepared_folder(paradetox: Path, tmp_path: Path) -> None:
    splits = load_pairs(dataset(paradetox, target_column=NEUTRAL, limit=500))
    write_pairs(splits, tmp_path, about={})
    assert load_pairs(dataset(tmp_path)) == splits


# -- prepared folders


def prepared(folder: Path) -> Path:
    write_pairs(split(rows(40)), folder, about={"origin": "rows"})
    return folder


def test_a_prepared_folder_is_read_back_as_it_was_written_whatever_the_dataset_says_of_splits(tmp_path: Path) -> None:
    given_rows = [{"toxic": source, "neutral": target} for source, target in CELLS] + rows(30)
    splits = split(given_rows, validation=0.2)
    write_pairs(splits, tmp_path / "dataset", about={"origin": "rows"})
    assert load_pairs(dataset(tmp_path / "dataset", split={"seed": 7}, source_column="other")) == splits


def test_a_prepared_folder_says_its_version_counts_and_origin(tmp_path: Path) -> None:
    about = json.loads((prepared(tmp_path) / "dataset.json").read_text("utf-8"))
    assert about == {"version": 1, "counts": {"train": 34, "validation": 2, "test": 4}, "origin": "rows"}


def test_a_limit_keeps_the_proportions_of_a_prepared_folder(tmp_path: Path) -> None:
    splits = load_pairs(dataset(prepared(tmp_path), limit=20))
    assert {name: len(part) for name, part in parts(splits).items()} == {"train": 17, "validation": 1, "test": 2}


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("dataset.json", "{"),
        ("dataset.json", "[]"),
        ("dataset.json", '{"version": 1}'),
        ("train.jsonl", ""),
        ("train.jsonl", "{"),
        ("train.jsonl", '{"source": "a"}\n'),
        ("train.jsonl", '{"source": "a", "targets": "bc"}\n'),
    ],
)
def test_a_broken_prepared_folder_is_refused(file: str, text: str, tmp_path: Path) -> None:
    write(prepared(tmp_path) / file, text)
    with pytest.raises(DataError, match=r"a broken prepared dataset.*prepare it again"):
        load_pairs(dataset(tmp_path))


def test_a_prepared_folder_of_another_version_is_refused(tmp_path: Path) -> None:
    write(prepared(tmp_path) / "dataset.json", '{"version": 99, "counts": {}}')
    with pytest.raises(DataError, match="format 99, this is format 1"):
        read_pairs(tmp_path)


def test_a_missing_part_of_a_prepared_folder_is_refused(tmp_path: Path) -> None:
    (prepared(tmp_path) / "test.jsonl").unlink()
    with pytest.raises(DataError, match=r"test\.jsonl"):
        load_pairs(dataset(tmp_path))
