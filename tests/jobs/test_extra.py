"""Pairs that join the train split: which ones do, which never do, and what is told of a file that can't be used."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from configs.load import SpecError, dump_spec, parse_spec, validate_spec
from configs.paths import resolve_paths
from configs.schema.data import Dataset, ExtraPairs
from configs.schema.kinds import Finetune
from jobs.context import JobContext
from jobs.data import DataError, Pair, PairSplits, load_pairs, write_pairs
from jobs.extra import join_extra, key_of
from jobs.prepare import run
from jobs.rewritten import describe_rows, is_added

SPLITS = PairSplits(
    (Pair("gold one", ("fine one",)), Pair("gold two", ("fine two", "good two"))),
    (Pair("Held out!", ("held",)),),
    (Pair('You are  an "idiot"', ("tested",)),),
)
"""Train, validation, test."""


def dataset(extra: Any, **changes: Any) -> Dataset:
    return Dataset.model_validate(
        {"name": "rows", "source_column": "toxic", "target_column": "neutral", **changes} | {"extra": extra}
    )


def write_table(file: Path, rows: Sequence[Mapping[str, str]]) -> Path:
    with file.open("w", encoding="utf-8", newline="", errors="surrogateescape") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return file


def write_rows(folder: Path, rows: Sequence[Mapping[str, str]]) -> Path:
    """What ``detoxify`` leaves for these rows: a merged file and its manifest."""
    file = write_table(folder / "pool.detoxified.csv", rows)
    about = {"parts": [], **describe_rows("comment", file.name)}
    (folder / "_manifest-a2.json").write_text(json.dumps(about), "utf-8")
    return file


def rewritten(comment: str, first: str, *others: str, status: str = "rewritten") -> dict[str, str]:
    second, third = (*others, "", "")[:2]
    names = ("comment", "detoxified", "detoxified_2", "detoxified_3", "distox_status")
    return dict(zip(names, (comment, first, second, third, status), strict=True))


def added(splits: PairSplits) -> list[Pair]:
    return [pair for pair in splits.train if pair not in SPLITS.train]


def test_every_kept_rewrite_of_a_new_comment_becomes_a_target(tmp_path: Path) -> None:
    file = write_rows(tmp_path, [rewritten("new", "a", "b"), rewritten("newer", "c")])
    joined = join_extra(SPLITS, dataset(str(file)))
    assert joined.train == (*SPLITS.train, Pair("new", ("a", "b")), Pair("newer", ("c",)))
    assert (joined.validation, joined.test) == (SPLITS.validation, SPLITS.test)
    assert (joined.extra["extra_rows"], joined.extra["extra_targets"]) == (2, 3)


@pytest.mark.parametrize(
    "comment", ["held out", " HELD  out!\n", "“You are an idiot”", "you are an IDIOT…", "ｈｅｌｄ out", "_held_ o'ut"]
)
def test_a_comment_of_validation_or_test_never_joins_however_it_is_written(comment: str, tmp_path: Path) -> None:
    file = write_rows(tmp_path, [rewritten(comment, "leak"), rewritten("new", "a")])
    joined = join_extra(SPLITS, dataset(str(file)))
    assert added(joined) == [Pair("new", ("a",))]
    assert joined.extra["extra_in_test"] + joined.extra["extra_in_validation"] == 1


def test_a_comment_of_test_never_joins_where_a_limit_leaves_it_out(tmp_path: Path) -> None:
    def many(name: str) -> tuple[Pair, ...]:
        return tuple(Pair(f"{name} {number}", ("neutral",)) for number in range(10))

    write_pairs(PairSplits(many("train"), many("validation"), many("test")), tmp_path / "data", about={})
    rows = [rewritten(pair.source, "leak") for name in ("validation", "test") for pair in many(name)]
    file = write_rows(tmp_path, [*rows, rewritten("new", "a")])
    joined = load_pairs(dataset(str(file), name=str(tmp_path / "data"), limit=6))
    assert len(joined.test) == 2
    assert [pair.source for pair in joined.train if not pair.source.startswith("train")] == ["new"]
    assert (joined.extra["extra_in_test"], joined.extra["extra_in_validation"]) == (10, 10)


def test_comments_without_a_word_are_told_apart_by_their_signs() -> None:
    assert key_of(" !!! ") == key_of("!!!") != key_of("???")


def test_the_copies_of_a_comment_in_a_dump_count_once(tmp_path: Path) -> None:
    rows = [rewritten("New!", ""), rewritten("New!", "a", "b"), rewritten("new", "c"), rewritten("New!", "d")]
    joined = join_extra(SPLITS, dataset(str(write_rows(tmp_path, rows))))
    assert added(joined) == [Pair("New!", ("a", "b"))]
    assert (joined.extra["extra_duplicates"], joined.extra["extra_unusable"]) == (2, 1)


def test_rows_that_somebody_should_look_at_are_left_out(tmp_path: Path) -> None:
    statuses = ("flagged", "quarantined", "passed", "unchanged", "rewritten")
    rows = [rewritten(f"comment {status}", "text", status=status) for status in statuses]
    joined = join_extra(SPLITS, dataset(str(write_rows(tmp_path, rows))))
    assert [pair.source for pair in added(joined)] == ["comment unchanged", "comment rewritten"]
    assert joined.extra["extra_unusable"] == 3


@pytest.mark.parametrize(
    ("known_sources", "targets", "num_targets"),
    [("skip", ("fine two", "good two"), 0), ("add", ("fine two", "good two", "new two"), 1), ("replace", None, 2)],
)
def test_a_comment_of_train_is_dealt_with_as_the_spec_says(
    known_sources: str, targets: tuple[str, ...] | None, num_targets: int, tmp_path: Path
) -> None:
    file = write_rows(tmp_path, [rewritten("Gold two.", "good two", "new two")])
    joined = join_extra(SPLITS, dataset({"name": str(file), "known_sources": known_sources}))
    assert joined.train == (SPLITS.train[0], Pair("gold two", targets or ("good two", "new two")))
    assert (joined.extra["extra_in_train"], joined.extra["extra_targets"]) == (1, num_targets)


def test_the_manifest_stands_for_rows_that_were_not_merged(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    for number in range(2):
        write_table(tmp_path / "parts" / f"part-{number}.csv", [rewritten(f"new {number}", "a")])
    parts = [{"file": f"parts/part-{number}.csv"} for number in range(2)]
    manifest = tmp_path / "_manifest-a1.json"
    manifest.write_text(json.dumps({"parts": parts, **describe_rows("comment", None)}), "utf-8")
    joined = join_extra(SPLITS, dataset(str(manifest)))
    assert [pair.source for pair in added(joined)] == ["new 0", "new 1"]


def test_bytes_that_detoxify_could_not_read_spoil_their_own_row_alone(tmp_path: Path) -> None:
    file = write_rows(tmp_path, [rewritten("br\udce9k", "a"), rewritten("new", "b", "c\udce9")])
    assert added(join_extra(SPLITS, dataset(str(file)))) == [Pair("new", ("b",))]


def test_another_file_has_the_columns_of_the_dataset_or_those_that_are_named(tmp_path: Path) -> None:
    rows = [{"toxic": "new", "neutral": "a", "second": "b"}, {"toxic": "new", "neutral": "c", "second": ""}]
    file = str(write_table(tmp_path / "more.csv", rows))
    assert added(join_extra(SPLITS, dataset(file))) == [Pair("new", ("a", "c"))]
    named = {"name": file, "source_column": "neutral", "target_column": ["toxic", "second"]}
    assert added(join_extra(SPLITS, dataset(named))) == [Pair("a", ("new", "b")), Pair("c", ("new",))]


def test_a_prepared_folder_gives_its_train_split(tmp_path: Path) -> None:
    other = PairSplits((Pair("new", ("a", "b")),), (Pair("not this", ("x",)),), (Pair("nor this", ("x",)),))
    write_pairs(other, tmp_path / "other", about={})
    assert added(join_extra(SPLITS, dataset(str(tmp_path / "other")))) == [Pair("new", ("a", "b"))]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"name": "more.csv"}, r"dataset\.extra\.source_column = 'toxic': .*no such column; .*it has comment, other"),
        (
            {"name": "more.csv", "source_column": "comment", "target_column": "othr"},
            r"dataset\.extra\.target_column = 'othr': .*did you mean 'other'",
        ),
        ({"name": "gone.csv"}, r"dataset\.extra\.name = .*gone\.csv: no such file"),
        ({"name": "more.xlsx"}, r"dataset\.extra\.name = .*unknown ending"),
        (
            {"name": "more.csv", "source_column": "comment", "target_column": "empty"},
            r"dataset\.extra\.name = .*no usable pair in its 1 rows",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_by_name(extra: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_table(tmp_path / "more.csv", [{"comment": "new", "other": "a", "empty": ""}])
    (tmp_path / "more.xlsx").write_bytes(b"PK")
    with pytest.raises(DataError, match=message):
        join_extra(SPLITS, dataset({**extra, "name": str(tmp_path / extra["name"])}))


def test_a_latin_1_file_is_refused_rather_than_half_read(tmp_path: Path) -> None:
    (tmp_path / "more.csv").write_bytes("toxic,neutral\ncafé,a\nnew,b\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"dataset\.extra\.name = .*not UTF-8"):
        join_extra(SPLITS, dataset(str(tmp_path / "more.csv")))


def test_load_pairs_adds_them_after_the_split_and_the_limit(tmp_path: Path) -> None:
    rows = [{"toxic": f"rude {number}", "neutral": f"kind {number}"} for number in range(100)]
    file, more = write_table(tmp_path / "pairs.csv", rows), tmp_path / "more.csv"
    plain = load_pairs(dataset(None, name=str(file), limit=40))
    write_table(more, [*rows, {"toxic": "new", "neutral": "a"}])
    joined = load_pairs(dataset(str(more), name=str(file), limit=40))
    assert (joined.validation, joined.test) == (plain.validation, plain.test)
    # All but validation and test: what the limit left out of the dataset is new to it.
    assert len(joined.train) == 101 - len(plain.validation) - len(plain.test)
    assert joined.train[: len(plain.train)] == plain.train


def test_prepare_tells_what_joined_and_writes_it_into_train(tmp_path: Path) -> None:
    rows = [{"toxic": f"rude {number}", "neutral": f"kind {number}"} for number in range(20)]
    file = write_table(tmp_path / "pairs.csv", rows)
    more = write_table(tmp_path / "more.csv", [{"toxic": "new", "neutral": "a"}])
    spec = validate_spec({"kind": "prepare", "dataset": dump_dataset(dataset(str(more), name=str(file)))})
    (tmp_path / "out").mkdir()
    result = run(spec, JobContext(tmp_path / "out", lambda figures, step: None, lambda: False))  # type: ignore[arg-type]
    figures = {item.metric: item.value for item in result.summaries}
    assert (figures["num_train"], figures["extra_targets"]) == (18, 1)
    assert load_pairs(Dataset(name=str(tmp_path / "out" / "dataset"))).train[-1] == Pair("new", ("a",))


def dump_dataset(given: Dataset) -> dict[str, Any]:
    return given.model_dump(mode="json")


@pytest.mark.parametrize("name", ["detoxified", "detoxified_2", "detoxified_64", "distox_status"])
def test_the_columns_that_detoxify_adds_are_known_by_their_names(name: str) -> None:
    assert is_added(name)
    assert not is_added(f"my {name}")
    assert not is_added(f"{name}s")


# -- in a spec


def finetune(extra: str) -> Finetune:
    text = f"kind: finetune\nmodel: {{name: t5-small}}\ndataset: {{name: ./pairs.csv, extra: {extra}}}"
    spec = parse_spec(text)
    assert isinstance(spec, Finetune)
    return spec


def test_a_name_alone_is_the_short_form() -> None:
    spec = finetune("./more.csv")
    assert spec.dataset.extra == ExtraPairs(name="./more.csv")
    assert spec == finetune("{name: ./more.csv}")
    assert validate_spec(dump_spec(spec)) == spec


def test_its_path_is_made_absolute_where_the_spec_is_submitted(tmp_path: Path) -> None:
    (tmp_path / "more.csv").touch()
    resolved = resolve_paths(finetune("more.csv"), tmp_path)
    assert isinstance(resolved, Finetune)
    assert resolved.dataset.extra == ExtraPairs(name=str(tmp_path / "more.csv"))


@pytest.mark.parametrize(
    ("extra", "fault"),
    [
        ("./pairs.csv", r"dataset\.extra\.name = .*is the dataset itself; name other pairs"),
        ("{name: a.csv, known_sources: both}", r"dataset\.extra\.known_sources = .*use one of skip, add, replace"),
        ("{source_column: a}", r"dataset\.extra\.name: is missing"),
        ("{name: a.csv, colum: a}", r"dataset\.extra\.colum = .*is no key"),
        ("[a.csv]", r"dataset\.extra = .*isn't keys and values"),
        ("7", r"dataset\.extra = 7: isn't keys and values"),
    ],
)
def test_a_wrong_value_is_refused_with_a_remedy(extra: str, fault: str) -> None:
    with pytest.raises(SpecError, match=fault):
        finetune(extra)


PIPELINE = """
kind: pipeline
steps:
  student:
    kind: finetune
    model: {{name: t5-small}}
    dataset: {{name: a.csv, extra: "{extra}"}}
  augment:
    kind: detoxify
    model: {{name: {model}}}
    input: {{path: pool.csv}}
"""


@pytest.mark.parametrize(
    ("extra", "model", "fault"),
    [
        ("${steps.student.model}", "teacher", "circle .student needs student."),
        ("${steps.augment.rows}", "'${steps.student.model}'", "circle"),
        ("${steps.augment.row}", "teacher", "did you mean rows"),
    ],
)
def test_a_step_that_would_wait_for_itself_is_refused(extra: str, model: str, fault: str) -> None:
    parse_spec(PIPELINE.format(extra="${steps.augment.rows}", model="teacher"))
    with pytest.raises(SpecError, match=fault):
        parse_spec(PIPELINE.format(extra=extra, model=model))
