"""Pairs of a comment and its rewrites: read from a file, a hub or a prepared folder, and split by distinct source.

Guarantee: a source text is in exactly one of train, validation and test, with all its rewrites; the same dataset, seed
and shares give the same split on every machine. It knows no tokenizer and no model.
"""

from __future__ import annotations

import csv
import difflib
import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from configs.schema.data import SAMPLE, Dataset

PREPARED_FILE = "dataset.json"
"""Marks a folder that ``write_pairs`` wrote."""
FORMAT_VERSION = 1
SPLITS = ("train", "validation", "test")
MAX_CELL_CHARACTERS = 10_000_000
"""A cell above the csv module's own 131,072 characters is still text."""

Row = Mapping[str, Any]


class DataError(ValueError):
    """A dataset that can't be used; one line that says why and what to do."""


@dataclass(frozen=True)
class Pair:
    """A source text and its rewrites, at least one."""

    source: str
    targets: tuple[str, ...]


@dataclass(frozen=True)
class PairSplits:
    """The three parts of a dataset."""

    train: tuple[Pair, ...]
    validation: tuple[Pair, ...]
    test: tuple[Pair, ...]


def load_pairs(dataset: Dataset) -> PairSplits:
    """Read a dataset and split it.

    Raises:
        DataError: it can't be found or read, lacks a column, or leaves a split empty that is needed.
    """
    if dataset.name == SAMPLE:
        from jobs.sample import sample_rows

        return split_rows(sample_rows(), dataset, origin="the sample")
    path = Path(dataset.name)
    if (path / PREPARED_FILE).is_file():
        return _limit(read_pairs(path), dataset)
    if path.is_file():
        return split_rows(_read_file(path), dataset, origin=str(path))
    if path.is_dir():
        raise DataError(
            f"dataset.name = {path}: no {PREPARED_FILE} in this folder; give a folder that prepare wrote, or a file"
        )
    if looks_local(dataset.name):
        close = difflib.get_close_matches(path.name, _names_beside(path), n=1)
        hint = f"did you mean {path.parent / close[0]}?" if close else "check the path"
        raise DataError(f"dataset.name = {path}: no such file; {hint}")
    return split_rows(_read_hub(dataset.name), dataset, origin=dataset.name)


def split_rows(rows: Iterable[Row], dataset: Dataset, *, origin: str) -> PairSplits:
    """Gather rows into pairs, by distinct source, and split them as the dataset says.

    Rows without a source or without any rewrite are left out. Rewrites of one source are joined in their order.

    Raises:
        DataError: a column is missing, there is no pair at all, or the split column holds an unknown name.
    """
    columns = (dataset.target_column,) if isinstance(dataset.target_column, str) else dataset.target_column
    targets: dict[str, dict[str, None]] = {}
    assigned: dict[str, str] = {}
    checked = False
    for row in rows:
        if not checked:
            _check_columns(row, dataset, columns, origin)
            checked = True
        source = _text(row.get(dataset.source_column))
        rewrites = [text for column in columns if (text := _text(row.get(column)))]
        if not source or not rewrites:
            continue
        targets.setdefault(source, {}).update(dict.fromkeys(rewrites))
        if dataset.split.column is not None:
            assigned.setdefault(source, _split_name(row.get(dataset.split.column), dataset, origin))
    if not targets:
        raise DataError(
            f"{origin}: no pair in it (empty, or no row has both source and rewrite); give a dataset with rows"
        )
    pairs = [Pair(source, tuple(rewrites)) for source, rewrites in targets.items()]
    if dataset.split.column is not None:
        ready = PairSplits(*(tuple(pair for pair in pairs if assigned[pair.source] == name) for name in SPLITS))
        return _limit(_take_validation(ready, dataset) if not ready.validation else ready, dataset)
    return _draw_split(pairs, dataset)


def write_pairs(splits: PairSplits, folder: Path, *, about: Mapping[str, Any]) -> None:
    """Write a prepared folder: three JSONL files and ``dataset.json``, which is written last."""
    folder.mkdir(parents=True, exist_ok=True)
    counts = {}
    for name in SPLITS:
        pairs: Sequence[Pair] = getattr(splits, name)
        counts[name] = len(pairs)
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8", newline="\n") as stream:
            stream.writelines(json.dumps(asdict(pair), ensure_ascii=False) + "\n" for pair in pairs)
    text = json.dumps({"version": FORMAT_VERSION, "counts": counts, **about}, indent=2, ensure_ascii=False)
    (folder / PREPARED_FILE).write_text(text + "\n", "utf-8")


def read_pairs(folder: Path) -> PairSplits:
    """Read a prepared folder as it was written.

    Raises:
        DataError: it is of another version or a file of it is broken.
    """
    try:
        version = json.loads((folder / PREPARED_FILE).read_text("utf-8"))["version"]
        if version != FORMAT_VERSION:
            raise DataError(
                f"{folder}: prepared in format {version}, this is format {FORMAT_VERSION}; prepare it again"
            )
        return PairSplits(*(tuple(_read_split(folder / f"{name}.jsonl")) for name in SPLITS))
    except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise DataError(f"{folder}: a broken prepared dataset ({error}); prepare it again") from error


def looks_local(name: str) -> bool:
    """Whether a name that doesn't exist was meant as a path rather than as a hub name (``name`` or ``owner/name``)."""
    return name.startswith(("/", ".", "~")) or name.count("/") > 1 or Path(name).suffix in _READERS


def _draw_split(pairs: list[Pair], dataset: Dataset) -> PairSplits:
    """Shuffle by the seed, then cut: test from the end, train from the start."""
    order = sorted(pairs, key=lambda pair: pair.source)
    random.Random(dataset.split.seed).shuffle(order)  # noqa: S311 (a split, no secret)
    order = order[: dataset.limit] if dataset.limit else order
    num_test = round(len(order) * dataset.split.test)
    num_train = min(round(len(order) * dataset.split.train), len(order) - num_test)
    splits = PairSplits(tuple(order[:num_train]), (), tuple(order[len(order) - num_test :]))
    return _take_validation(splits, dataset)


def _take_validation(splits: PairSplits, dataset: Dataset) -> PairSplits:
    """Move a share of train to validation, drawn by the seed."""
    num_validation = round(len(splits.train) * dataset.validation)
    chosen = set(random.Random(dataset.split.seed + 1).sample(range(len(splits.train)), num_validation))  # noqa: S311
    train = tuple(pair for index, pair in enumerate(splits.train) if index not in chosen)
    validation = tuple(pair for index, pair in enumerate(splits.train) if index in chosen)
    return PairSplits(train, validation, splits.test)


def _limit(splits: PairSplits, dataset: Dataset) -> PairSplits:
    """Keep at most ``limit`` sources, each split in its proportion and at least one of what there was."""
    total = sum(len(getattr(splits, name)) for name in SPLITS)
    if dataset.limit is None or dataset.limit >= total:
        return splits
    share = dataset.limit / total
    return PairSplits(
        *(part[: max(1, round(len(part) * share))] for part in (splits.train, splits.validation, splits.test))
    )


def _check_columns(row: Row, dataset: Dataset, targets: Sequence[str], origin: str) -> None:
    wanted = {"source_column": [dataset.source_column], "target_column": list(targets)}
    if dataset.split.column is not None:
        wanted["split.column"] = [dataset.split.column]
    present = [str(key) for key in row if key is not None]
    for field, names in wanted.items():
        for name in names:
            if name not in present:
                close = difflib.get_close_matches(name, present, n=1)
                hint = f"did you mean {close[0]!r}? " if close else ""
                raise DataError(
                    f"dataset.{field} = {name!r}: {origin} has no such column; {hint}it has {', '.join(present)}"
                )


def _split_name(value: Any, dataset: Dataset, origin: str) -> str:
    name = _text(value)
    if name not in SPLITS:
        raise DataError(f"{origin}: {name!r} in the split column {dataset.split.column!r}; use {', '.join(SPLITS)}")
    return name


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


def _read_split(file: Path) -> Iterator[Pair]:
    with file.open(encoding="utf-8") as stream:
        for line in stream:
            data = json.loads(line)
            yield Pair(data["source"], tuple(data["targets"]))


def _read_file(path: Path) -> Iterator[Row]:
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"dataset.name = {path}: unknown ending {path.suffix!r}; use {', '.join(_READERS)}")
    if path.stat().st_size == 0:
        raise DataError(f"dataset.name = {path}: the file is empty; give a file with a header and rows")
    try:
        yield from reader(path)
    except UnicodeDecodeError as error:
        raise DataError(
            f"dataset.name = {path}: not UTF-8 ({error.reason} at byte {error.start}); convert it"
        ) from error
    except OSError as error:
        raise DataError(f"dataset.name = {path}: can't be read ({error.strerror}); check its permissions") from error


def _read_delimited(path: Path, delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(MAX_CELL_CHARACTERS)
    with path.open(encoding="utf-8-sig", newline="") as stream:
        try:
            yield from csv.DictReader(stream, delimiter=delimiter)
        except csv.Error as error:
            raise DataError(f"dataset.name = {path}: broken near a record ({error}); check its quoting") from error


def _read_jsonl(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                data = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"dataset.name = {path}: line {number} is not JSON ({error.msg}); mend it") from error
            if not isinstance(data, dict):
                raise DataError(f"dataset.name = {path}: line {number} is no JSON object; write one object a line")
            yield data


def _read_parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"dataset.name = {path}: not a Parquet file; check it") from error
    for batch in file.iter_batches():
        yield from batch.to_pylist()


_READERS = {
    ".csv": lambda path: _read_delimited(path, ","),
    ".tsv": lambda path: _read_delimited(path, "\t"),
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}


def _names_beside(path: Path) -> list[str]:
    return [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []


def _read_hub(name: str) -> Iterator[Row]:
    """Every row of every split of a hub dataset: the split is ours, so that it is by distinct source."""
    import datasets

    from jobs.hub import is_hub_reachable

    if not is_hub_reachable():
        raise DataError(
            f"dataset.name = {name!r}: not a local file, and the hub can't be reached; check the network, "
            "give a local file, or use the embedded corpus: name: sample"
        )
    try:
        loaded = datasets.load_dataset(name)
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            f"dataset.name = {name!r}: not a local file, and the hub doesn't give it ({_one_line(error)}); "
            "check the name, or use the embedded corpus: name: sample"
        ) from error
    for split in loaded.values():
        yield from split


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:197] + "..."
