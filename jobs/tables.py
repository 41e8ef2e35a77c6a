"""Reads the rows of a table, from a CSV, TSV, JSONL or Parquet file or from a hub, and says in one line why it can't.

Guarantee: a file is read whole or refused, never in part. It knows nothing of what the columns hold.
"""

from __future__ import annotations

import csv
import difflib
import json
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

MAX_CELL_CHARACTERS = 10_000_000
"""A cell above the csv module's own 131,072 characters is still text."""

Row = Mapping[str, Any]


class DataError(ValueError):
    """A dataset that can't be used; one line that says why and what to do."""


def read_rows(name: str, *, field: str, is_lenient: bool = False) -> Iterator[Row]:
    """The rows of a file, or of every split of a hub dataset.

    Args:
        name: a path or a hub name.
        field: the spec's field, for messages.
        is_lenient: let through bytes that are no UTF-8 and halves of characters, as lone surrogates; for files in
            which such rows are marked.

    Raises:
        DataError: it can't be found or read. Some of it is raised only where the iterator gets to the place.
    """
    path = Path(name)
    if is_file(path):
        return _read_file(path, field, "surrogateescape" if is_lenient else "strict")
    if is_dir(path):
        raise DataError(f"{field} = {path}: no dataset.json in this folder; give one that prepare wrote, or a file")
    if looks_local(name):
        close = difflib.get_close_matches(path.name, _names_beside(path), n=1)
        hint = f"did you mean {path.parent / close[0]}?" if close else "check the path"
        raise DataError(f"{field} = {path}: no such file; {hint}")
    return _read_hub(name, field)


def check_columns(present: Sequence[str], wanted: Mapping[str, Sequence[str]], *, origin: str) -> None:
    """See that a table has the columns that a spec names.

    Args:
        present: the table's columns.
        wanted: field of the spec → the columns it names.
        origin: the table, for messages.

    Raises:
        DataError: one is missing; the message lists those there are.
    """
    for field, names in wanted.items():
        for name in names:
            if name not in present:
                close = difflib.get_close_matches(name, present, n=1)
                hint = f"did you mean {close[0]!r}? " if close else ""
                raise DataError(f"{field} = {name!r}: {origin} has no such column; {hint}it has {', '.join(present)}")


def looks_local(name: str) -> bool:
    """Whether a name that doesn't exist was meant as a path rather than as a hub name (``name`` or ``owner/name``)."""
    return name.startswith(("/", ".", "~")) or name.count("/") > 1 or Path(name).suffix in _READERS


def is_file(path: Path) -> bool:
    """Whether a file stands there; False for a name that no file can have."""
    return stat.S_ISREG(_mode(path))


def is_dir(path: Path) -> bool:
    """Whether a folder stands there; False for a name that no folder can have."""
    return stat.S_ISDIR(_mode(path))


def text_of(value: Any) -> str:
    """A cell without the spaces around it; empty for what is no text."""
    return value.strip() if isinstance(value, str) else ""


def one_line(error: Exception) -> str:
    """What an error says, in at most 200 characters of one line."""
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:197] + "..."


def _read_file(path: Path, field: str, errors: str) -> Iterator[Row]:
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{field} = {path}: unknown ending {path.suffix!r}; use {', '.join(_READERS)}")
    if path.stat().st_size == 0:
        raise DataError(f"{field} = {path}: the file is empty; give a file with a header and rows")
    try:
        yield from reader(path, field, errors)
    except UnicodeDecodeError as error:
        raise DataError(f"{field} = {path}: not UTF-8 ({error.reason} at byte {error.start}); convert it") from error
    except OSError as error:
        raise DataError(f"{field} = {path}: can't be read ({error.strerror}); check its permissions") from error


def _read_csv(path: Path, field: str, errors: str) -> Iterator[Row]:
    return _read_delimited(path, field, errors, ",")


def _read_tsv(path: Path, field: str, errors: str) -> Iterator[Row]:
    return _read_delimited(path, field, errors, "\t")


def _read_delimited(path: Path, field: str, errors: str, delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(MAX_CELL_CHARACTERS)
    with path.open(encoding="utf-8-sig", errors=errors, newline="") as stream:
        try:
            # Strict: a quote that is never closed would else swallow the rest of the file as one cell.
            yield from csv.DictReader(stream, delimiter=delimiter, strict=True)
        except csv.Error as error:
            raise DataError(f"{field} = {path}: broken near a record ({error}); check its quoting") from error


def _read_jsonl(path: Path, field: str, errors: str) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", errors=errors) as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                data = json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                raise DataError(f"{field} = {path}: line {number} is not JSON ({one_line(error)}); mend it") from error
            if not isinstance(data, dict):
                raise DataError(f"{field} = {path}: line {number} is no JSON object; write one object a line")
            if errors == "strict" and "\\ud" in line.lower() and not _is_encodable(data):
                raise DataError(f"{field} = {path}: line {number} holds half a character (a lone \\ud…); mend it")
            yield data


def _is_encodable(data: Row) -> bool:
    try:
        json.dumps(data, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _read_parquet(path: Path, field: str, errors: str) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                yield from batch.to_pylist()
    except PermissionError:
        raise
    except (pyarrow.ArrowException, OSError) as error:  # a damaged page is an OSError without a number
        raise DataError(f"{field} = {path}: not a whole Parquet file ({one_line(error)}); write it again") from error


_READERS = {".csv": _read_csv, ".tsv": _read_tsv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}


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


def _read_hub(name: str, field: str) -> Iterator[Row]:
    """Every row of every split of a hub dataset: the split is ours, so that it is by distinct source.

    Without a network a copy that was loaded before is used, after the library's own attempts to reach the hub.
    """
    import datasets
    import httpx

    from jobs.hub import is_hub_reachable

    *owner, repository = name.split("/")
    cached = "___".join([*owner, datasets.naming.camelcase_to_snakecase(repository)])
    if not is_dir(Path(datasets.config.HF_DATASETS_CACHE) / cached) and not is_hub_reachable():
        raise DataError(
            f"{field} = {name!r}: not a local file, and the hub can't be reached; check the network, "
            "give a local file, or use the embedded corpus: name: sample"
        )
    try:
        loaded = datasets.load_dataset(name)
    except (OSError, ValueError, RuntimeError, httpx.HTTPError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"{field} = {name!r}: not a local file, and the hub doesn't give it ({one_line(error)}); "
            "check the name, or use the embedded corpus: name: sample"
        ) from error
    for split in loaded.values():
        yield from split
