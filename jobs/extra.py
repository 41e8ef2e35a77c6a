"""Pairs from elsewhere that join the train split: a teacher's rewrites of comments that nobody has rewritten by hand.

This is the second half of sequence-level distillation: the student learns from what the teacher writes (Kim & Rush,
"Sequence-Level Knowledge Distillation", EMNLP 2016), here on comments beyond the train split and with several
pseudo-targets for each (Calderon et al., "A Systematic Study of Knowledge Distillation for Natural Language Generation
with Pseudo-Target Training", ACL 2023).

Guarantee: no comment of validation or test comes into train, whatever its casing, spacing and punctuation, and whether
or not ``limit`` leaves it to be tested on; a comment joins once. It knows no model.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from configs.schema.data import Dataset, ExtraPairs
from jobs.pairs import Pair, PairSplits, is_prepared, read_pairs
from jobs.rewritten import STATUS, USABLE, find_rewrites, find_rows
from jobs.tables import DataError, Row, check_columns, read_rows, text_of

FIELD = "dataset.extra"
_WORDS = re.compile(r"[^\W_]+")

logger = logging.getLogger(__name__)


def join_extra(splits: PairSplits, dataset: Dataset) -> PairSplits:
    """Add the pairs of ``dataset.extra`` to train; without it, ``splits`` as they are.

    The result's ``extra`` counts what became of the rows:

    - ``extra_rows``: rows of the file;
    - ``extra_unusable``: without comment or rewrite, or flagged or quarantined by ``detoxify``;
    - ``extra_duplicates``: of a comment that a row before had, left out;
    - ``extra_in_test``, ``extra_in_validation``: of a comment that stands there, left out;
    - ``extra_in_train``: of a comment that train has; ``known_sources`` says what is done with them;
    - ``extra_targets``: (comment, rewrite) pairs, that is rows to train on, that came from the file.

    Raises:
        DataError: the file can't be read, lacks a column, or has no pair to use.
    """
    if dataset.extra is None:
        return splits
    counts: Counter[str] = Counter(dict.fromkeys(_COUNTS, 0))
    found = _gather(_rows_of(dataset.extra, dataset), counts)
    if not found:
        raise DataError(
            f"{FIELD}.name = {dataset.extra.name}: no usable pair in its {counts['extra_rows']} rows; keep more "
            "candidates where it was made, or leave extra out"
        )
    for name in ("test", "validation"):
        sources = [pair.source for pair in getattr(splits, name)]
        for source in (*sources, *splits.left_out.get(name, ())):
            counts[f"extra_in_{name}"] += found.pop(key_of(source), None) is not None
    train = _join(splits.train, found, dataset.extra, counts)
    level = logging.INFO if counts["extra_targets"] else logging.WARNING
    logger.log(level, "%s: %s", FIELD, ", ".join(f"{name} {number}" for name, number in counts.items()))
    return replace(splits, train=train, extra=dict(counts))


def key_of(text: str) -> str:
    """What two comments have in common that are the same but for casing, spacing, punctuation and Unicode form."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    # Joined: "don't", "don ' t" and "dont" are one word.
    return "".join(_WORDS.findall(plain)) or "".join(plain.split())


_COUNTS = tuple(
    f"extra_{name}" for name in ("rows", "unusable", "duplicates", "in_test", "in_validation", "in_train", "targets")
)


@dataclass(frozen=True)
class _Rewritten:
    """A row as it is used."""

    source: str
    targets: tuple[str, ...]
    is_alone: bool
    """Holds all rewrites of its comment; else further rows may hold more."""


def _gather(rows: Iterator[_Rewritten], counts: Counter[str]) -> dict[str, Pair]:
    """Key → pair, in the order of the rows."""
    found: dict[str, Pair] = {}
    for row in rows:
        counts["extra_rows"] += 1
        key = key_of(row.source)
        known = found.get(key)
        if not row.source or not row.targets:
            counts["extra_unusable"] += 1
        elif known is None:
            found[key] = Pair(row.source, row.targets)
        elif row.is_alone or row.source != known.source:
            # The many copies of a comment in a dump must not weigh more than others.
            counts["extra_duplicates"] += 1
        else:
            found[key] = Pair(known.source, tuple(dict.fromkeys((*known.targets, *row.targets))))
    return found


def _join(train: Sequence[Pair], found: dict[str, Pair], extra: ExtraPairs, counts: Counter[str]) -> tuple[Pair, ...]:
    """Train with what was found; a comment that train has is dealt with as ``known_sources`` says."""
    joined: list[Pair] = []
    for pair in train:
        new = found.pop(key_of(pair.source), None)
        counts["extra_in_train"] += new is not None
        if new is None or extra.known_sources == "skip":
            joined.append(pair)
            continue
        own = () if extra.known_sources == "replace" else pair.targets
        targets = tuple(dict.fromkeys((*own, *new.targets)))
        counts["extra_targets"] += len(targets) - len(own)
        joined.append(Pair(pair.source, targets))
    counts["extra_targets"] += sum(len(pair.targets) for pair in found.values())
    return (*joined, *found.values())


def _rows_of(extra: ExtraPairs, dataset: Dataset) -> Iterator[_Rewritten]:
    """The rows of whatever ``extra.name`` is."""
    path = Path(extra.name)
    if is_prepared(path):
        return (_Rewritten(pair.source, pair.targets, is_alone=True) for pair in read_pairs(path).train)
    asked = _listed(extra.target_column)
    rows = find_rows(path)
    if rows is None:
        names = _Names(extra.source_column or dataset.source_column, asked, _listed(dataset.target_column))
        return _read_table(extra.name, names, is_lenient=False)
    names = _Names(extra.source_column or rows.text_column, asked, ())
    # What detoxify could not read it has quarantined, and written as it was.
    return (row for file in rows.files for row in _read_table(str(file), names, is_lenient=True))


@dataclass(frozen=True)
class _Names:
    """The columns to read."""

    source: str
    asked: tuple[str, ...]
    """For the targets; empty: those that ``detoxify`` added."""
    otherwise: tuple[str, ...]
    """Where it added none."""

    def targets_in(self, columns: Iterable[str | None]) -> tuple[str, ...]:
        added = find_rewrites([name for name in columns if name is not None])
        return self.asked or added or self.otherwise


def _read_table(name: str, names: _Names, *, is_lenient: bool) -> Iterator[_Rewritten]:
    """The rows of one file.

    Raises:
        DataError: it can't be read, or no row has a column that is asked for.
    """
    present: dict[str, None] = {}
    for row in read_rows(name, field=f"{FIELD}.name", is_lenient=is_lenient):
        present.update(dict.fromkeys(row))
        yield _read(row, names)
    columns = [column for column in present if isinstance(column, str)]
    wanted = {f"{FIELD}.source_column": [names.source], f"{FIELD}.target_column": names.targets_in(columns)}
    if columns:
        check_columns(columns, wanted, origin=name)


def _read(row: Row, names: _Names) -> _Rewritten:
    is_usable = row.get(STATUS) in (None, *USABLE)
    texts = [text_of(row.get(column)) for column in names.targets_in(row)] if is_usable else []
    usable = dict.fromkeys(text for text in texts if text and _is_whole(text))
    comment = text_of(row.get(names.source))
    return _Rewritten(comment if _is_whole(comment) else "", tuple(usable), is_alone=STATUS in row)


def _is_whole(text: str) -> bool:
    """Whether no byte of it was unreadable."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _listed(columns: str | Sequence[str] | None) -> tuple[str, ...]:
    if columns is None:
        return ()
    return (columns,) if isinstance(columns, str) else tuple(columns)
