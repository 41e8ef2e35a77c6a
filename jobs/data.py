"""Pairs of a comment and its rewrites: read from a file, a hub or a prepared folder, and split by distinct source.

Guarantee: a source text is in exactly one of train, validation and test, with all its rewrites; the same dataset, seed
and shares give the same split on every machine. It knows no tokenizer and no model.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from configs.schema.data import SAMPLE, Dataset
from jobs.extra import join_extra
from jobs.pairs import SPLITS, Pair, PairSplits, is_prepared, read_pairs, write_pairs
from jobs.tables import DataError, Row, check_columns, looks_local, read_rows, text_of

__all__ = [
    "SPLITS",
    "DataError",
    "Pair",
    "PairSplits",
    "load_pairs",
    "looks_local",
    "read_pairs",
    "split_rows",
    "write_pairs",
]

logger = logging.getLogger(__name__)


def load_pairs(dataset: Dataset) -> PairSplits:
    """Read a dataset, split it, and add the pairs of ``dataset.extra`` to its train split.

    Raises:
        DataError: it can't be found or read, lacks a column, or leaves a split empty that is needed.
    """
    path = Path(dataset.name)
    if dataset.name == SAMPLE:
        from jobs.sample import sample_rows

        splits = split_rows(sample_rows(), dataset, origin="the sample")
    elif is_prepared(path):
        splits = _limit(read_pairs(path), dataset)
    else:
        splits = split_rows(read_rows(dataset.name, field="dataset.name"), dataset, origin=str(path))
    return join_extra(splits, dataset)


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
        source = text_of(row.get(dataset.source_column))
        rewrites = [text for column in columns if (text := text_of(row.get(column)))]
        if not source or not rewrites:
            continue
        targets.setdefault(source, {}).update(dict.fromkeys(rewrites))
        if dataset.split.column is not None:
            places.setdefault(source, []).append(row.get(dataset.split.column))
    if present:
        check_columns([name for name in present if isinstance(name, str)], _wanted(dataset, columns), origin=origin)
    if not targets:
        raise DataError(
            f"{origin}: no pair in it (empty, or no row has both source and rewrite); give a dataset with rows"
        )
    pairs = [Pair(source, tuple(rewrites)) for source, rewrites in targets.items()]
    if dataset.split.column is None:
        return _draw_split(pairs, dataset)
    return _limit(_take_split(pairs, places, dataset, origin), dataset)


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

    limited = PairSplits(*(drawn(getattr(splits, name)) for name in SPLITS))
    return replace(limited, left_out={name: _sources_without(splits, limited, name) for name in SPLITS})


def _sources_without(splits: PairSplits, limited: PairSplits, name: str) -> tuple[str, ...]:
    kept = {pair.source for pair in getattr(limited, name)}
    return tuple(pair.source for pair in getattr(splits, name) if pair.source not in kept)


def _wanted(dataset: Dataset, targets: Sequence[str]) -> dict[str, Sequence[str]]:
    """Field of the spec → the columns that it names."""
    wanted = {"dataset.source_column": [dataset.source_column], "dataset.target_column": targets}
    if dataset.split.column is not None:
        wanted["dataset.split.column"] = [dataset.split.column]
    return wanted


def _split_name(value: Any, dataset: Dataset, origin: str) -> str:
    name = text_of(value)
    if name not in SPLITS:
        raise DataError(f"{origin}: {name!r} in the split column {dataset.split.column!r}; use {', '.join(SPLITS)}")
    return name
