"""Pairs of a comment and its rewrites: read from a file, a hub or a prepared folder, and split by distinct source.

Guarantee: a source text is in exactly one of train, validation and test, with all its rewrites; the same dataset, seed
and shares give the same split on every machine. It knows no tokenizer and no model.
"""

from __future__ import annotations

import csv
import difflib
import json
import logging
import random
import stat
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

logger = logging.getLogger(__name__)


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
    if _is_file(path / PREPARED_FILE):
        return _limit(read_pairs(path), dataset)
    if _is_file(path):
        return split_rows(_read_file(path), dataset, origin=str(path))
    if _is_dir(path):
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

    Rows without a source or without any rewrite are left out. Rewrites of one source are joined in their order. A
    column is there when one row has it: the lines of a JSONL file may leave out what is empty. A source that a split
    column puts into several splits stays in the first, with a warning.

    Raises:
        DataError: a column is missing, there is no pair at all, or the split column holds an unknown name.
    """
    columns = (dataset.target_column,) if isinstance(dataset.target_column, str) else dataset.target_column
    present: dict[str, None] = {}
    targets: dict[str, dict[str, None]] = {}
    places: dict[str, list[Any]] = {}
    for row in rows:
        present.update(dict.fromkeys(row))
        source = _text(row.get(dataset.source_column))
        rewrites = [text for column in columns if (text := _text(row.get(column)))]
        if not source or not rewrites:
            continue
        targets.setdefault(source, {}).update(dict.fromkeys(rewrites))
        if dataset.split.column is not None:
            places.setdefault(source, []).append(row.get(dataset.split.column))
    if present:
        _check_columns([name for name in present if isinstance(name, str)], dataset, columns, origin)
    if not targets:
        raise DataError(
            f"{origin}: no pair in it (empty, or no row has both source and rewrite); give a dataset with rows"
        )
    pairs = [Pair(source, tuple(rewrites)) for source, rewrites in targets.items()]
    if dataset.split.column is None:
        return _draw_split(pairs, dataset)
    return _limit(_take_split(pairs, places, dataset, origin), dataset)


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
        about = json.loads((folder / PREPARED_FILE).read_text("utf-8"))
        if about["version"] != FORMAT_VERSION:
            raise DataError(
                f"{folder}: prepared in format {about['version']}, this is format {FORMAT_VERSION}; prepare it again"
            )
        splits = PairSplits(*(tuple(_read_split(folder / f"{name}.jsonl")) for name in SPLITS))
        counts = {name: len(getattr(splits, name)) for name in SPLITS}
        whole = about["counts"] == counts
    except (OSError, KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{folder}: a broken prepared dataset ({_one_line(error)}); prepare it again") from error
    if not whole:
        raise DataError(f"{folder}: a broken prepared dataset (pairs are missing); prepare it again")
    return splits


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


def _take_split(
    pairs: Sequence[Pair], places: Mapping[str, Sequence[Any]], dataset: Dataset, origin: str
) -> PairSplits:
    """The split that the dataset brings; where it has no validation, that is taken from train."""
    names = {source: [_split_name(value, dataset, origin) for value in values] for source, values in places.items()}
    if straddling := sum(len(set(found)) > 1 for found in names.values()):
        logger.warning("%s: %s sources are in several splits; each stays in its first alone", origin, straddling)
    ready = PairSplits(*(tuple(pair for pair in pairs if names[pair.source][0] == name) for name in SPLITS))
    return ready if ready.validation else _take_validation(ready, dataset)


def _take_validation(splits: PairSplits, dataset: Dataset) -> PairSplits:
    """Move a share of train to validation, drawn by the seed."""
    num_validation = round(len(splits.train) * dataset.validation)
    chosen = set(random.Random(dataset.split.seed + 1).sample(range(len(splits.train)), num_validation))  # noqa: S311
    train = tuple(pair for index, pair in enumerate(splits.train) if index not in chosen)
    validation = tuple(pair for index, pair in enumerate(splits.train) if index in chosen)
    return PairSplits(train, validation, splits.test)


def _limit(splits: PairSplits, dataset: Dataset) -> PairSplits:
    """Draw ``limit`` sources by the seed, of each split its share, rounded, and one at least; their order stays."""
    total = sum(len(getattr(splits, name)) for name in SPLITS)
    if dataset.limit is None or dataset.limit >= total:
        return splits
    share = dataset.limit / total
    chance = random.Random(dataset.split.seed)  # noqa: S311

    def drawn(part: Sequence[Pair]) -> tuple[Pair, ...]:
        size = min(len(part), max(1, round(len(part) * share)))
        return tuple(part[index] for index in sorted(chance.sample(range(len(part)), size)))

    return PairSplits(*(drawn(getattr(splits, name)) for name in SPLITS))


def _check_columns(present: Sequence[str], dataset: Dataset, targets: Sequence[str], origin: str) -> None:
    wanted = {"source_column": [dataset.source_column], "target_column": list(targets)}
    if dataset.split.column is not None:
        wanted["split.column"] = [dataset.split.column]
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
            if not isinstance(data["targets"], list):
                raise TypeError("targets is no list")
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
            # Strict: a quote that is never closed would else swallow the rest of the file as one cell.
            yield from csv.DictReader(stream, delimiter=delimiter, strict=True)
        except csv.Error as error:
            raise DataError(f"dataset.name = {path}: broken near a record ({error}); check its quoting") from error


def _read_jsonl(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                data = json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                raise DataError(
                    f"dataset.name = {path}: line {number} is not JSON ({_one_line(error)}); mend it"
                ) from error
            if not isinstance(data, dict):
                raise DataError(f"dataset.name = {path}: line {number} is no JSON object; write one object a line")
            if "\\ud" in line.lower() and not _is_encodable(data):
                raise DataError(f"dataset.name = {path}: line {number} holds half a character (a lone \\ud…); mend it")
            yield data


def _is_encodable(data: Row) -> bool:
    try:
        json.dumps(data, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _read_parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                yield from batch.to_pylist()
    except PermissionError:
        raise
    except (pyarrow.ArrowException, OSError) as error:  # a damaged page is an OSError without a number
        raise DataError(
            f"dataset.name = {path}: not a whole Parquet file ({_one_line(error)}); write it again"
        ) from error


_READERS = {
    ".csv": lambda path: _read_delimited(path, ","),
    ".tsv": lambda path: _read_delimited(path, "\t"),
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}


def _is_file(path: Path) -> bool:
    return stat.S_ISREG(_mode(path))


def _is_dir(path: Path) -> bool:
    return stat.S_ISDIR(_mode(path))


def _mode(path: Path) -> int:
    """What stands there; 0 for nothing, or for a name that no file can have (too long, with a zero byte)."""
    try:
        return path.stat().st_mode
    except (OSError, ValueError):
        return 0


def _names_beside(path: Path) -> list[str]:
    try:
        return [item.name for item in path.parent.iterdir()]
    except OSError:
        return []


def _read_hub(name: str) -> Iterator[Row]:
    """Every row of every split of a hub dataset: the split is ours, so that it is by distinct source.

    Without a network a copy that was loaded before is used, after the library's own attempts to reach the hub.
    """
    import datasets
    import httpx

    from jobs.hub import is_hub_reachable

    *owner, repository = name.split("/")
    cached = "___".join([*owner, datasets.naming.camelcase_to_snakecase(repository)])
    if not _is_dir(Path(datasets.config.HF_DATASETS_CACHE) / cached) and not is_hub_reachable():
        raise DataError(
            f"dataset.name = {name!r}: not a local file, and the hub can't be reached; check the network, "
            "give a local file, or use the embedded corpus: name: sample"
        )
    try:
        loaded = datasets.load_dataset(name)
    except (OSError, ValueError, RuntimeError, httpx.HTTPError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"dataset.name = {name!r}: not a local file, and the hub doesn't give it ({_one_line(error)}); "
            "check the name, or use the embedded corpus: name: sample"
        ) from error
    for split in loaded.values():
        yield from split


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:197] + "..."
