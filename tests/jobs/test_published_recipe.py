"""The published recipe's data path, on a local file with the columns of ParaDeHate: every spec of it sees one split."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from configs.load import dump_spec, load_spec, validate_spec
from configs.paths import resolve_paths
from configs.schema.data import Dataset
from configs.schema.kinds import AnySpec, Distill, Evaluate, Finetune, Pipeline, Prepare
from jobs import prepare
from jobs.context import JobContext
from jobs.data import DataError, PairSplits, load_pairs

RECIPE = Path(__file__).parents[2] / "configs" / "paradehate"
NUM_SOURCES = 200
FILE = "paradehate.csv"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Holds ``FILE``: every fourth comment has two rewrites, on rows far apart; cells hold commas and line ends."""
    rows = [(f"you fool number {n}, go\naway", f"please leave, {n}") for n in range(NUM_SOURCES)]
    rows += [(source, f"{target} again") for source, target in rows[::4]]
    with (tmp_path / FILE).open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["Original Text", "Converted Text"])
        writer.writerows(rows)
    return tmp_path


def on_the_file(name: str, folder: Path) -> AnySpec:
    """A spec of the recipe whose hub dataset is replaced by the file, as a user without a hub would edit it."""
    spec = load_spec(RECIPE / f"{name}.yaml")

    def replaced(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: replaced(item) for key, item in value.items()}
        return f"./{FILE}" if value == "ScaDSAI/ParaDeHate" else value

    return resolve_paths(validate_spec(replaced(dump_spec(spec))), folder)


def dataset_of(name: str, folder: Path) -> Dataset:
    spec = on_the_file(name, folder)
    if isinstance(spec, Pipeline):
        spec = spec.steps["data"]
    assert isinstance(spec, (Prepare, Finetune, Distill, Evaluate))
    return spec.dataset


def texts(splits: PairSplits) -> dict[str, set[str]]:
    return {name: {pair.source for pair in getattr(splits, name)} for name in ("train", "validation", "test")}


def test_nine_tenths_are_for_training_and_no_comment_is_on_both_sides(folder: Path) -> None:
    splits = load_pairs(dataset_of("finetune", folder))
    assert (len(splits.train) + len(splits.validation), len(splits.test)) == (180, 20)
    assert len(splits.validation) == 9
    parts = texts(splits)
    assert sum(len(part) for part in parts.values()) == NUM_SOURCES == len(set().union(*parts.values()))


def test_the_rewrites_of_one_comment_stay_with_it(folder: Path) -> None:
    splits = load_pairs(dataset_of("finetune", folder))
    pairs = [*splits.train, *splits.validation, *splits.test]
    assert sum(len(pair.targets) == 2 for pair in pairs) == NUM_SOURCES // 4
    assert all(pair.targets[1] == f"{pair.targets[0]} again" for pair in pairs if len(pair.targets) == 2)


def test_text_comes_through_unchanged(folder: Path) -> None:
    splits = load_pairs(dataset_of("finetune", folder))
    read = {(pair.source, pair.targets[0]) for part in (splits.train, splits.validation, splits.test) for pair in part}
    assert read == {(f"you fool number {n}, go\naway", f"please leave, {n}") for n in range(NUM_SOURCES)}


@pytest.mark.parametrize("name", ["prepare", "distill", "evaluate", "kd"])
def test_every_spec_of_the_recipe_sees_the_same_split(name: str, folder: Path) -> None:
    assert load_pairs(dataset_of(name, folder)) == load_pairs(dataset_of("finetune", folder))


def test_what_prepare_writes_is_read_back_as_the_split_it_was(folder: Path) -> None:
    spec = on_the_file("prepare", folder)
    assert isinstance(spec, Prepare)
    output = folder / "output"
    output.mkdir()
    context = JobContext(output, report=lambda figures, step: None, should_stop=lambda: False)
    result = prepare.run(spec.model_copy(update={"judges": None}), context)
    written = load_pairs(Dataset(name=str(output / result.artifacts["dataset"])))
    assert written == load_pairs(spec.dataset)


def test_a_file_with_other_columns_is_refused_with_those_it_has(folder: Path) -> None:
    (folder / FILE).write_text("Original text,Converted Text\na,b\n", "utf-8")
    with pytest.raises(DataError, match="did you mean 'Original text'") as caught:
        load_pairs(dataset_of("finetune", folder))
    assert "dataset.source_column = 'Original Text'" in str(caught.value)
