"""Tables with the columns of ParaDetox, which the project's own sample can fill as well."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

COLUMNS = ("toxic", "neutral1", "neutral2", "neutral3")


def write_sample(file: Path) -> None:
    """The project's sample as a table with the columns of ParaDetox."""
    from configs.schema.data import SampleSize
    from jobs.sample import sample_rows

    rewrites: dict[str, list[str]] = {}
    for row in sample_rows(SampleSize(num_pairs=600)):
        rewrites.setdefault(row["toxic"], []).append(row["neutral"])
    write_table(file, [[source, *[*texts, "", "", ""][:3]] for source, texts in rewrites.items()])


def write_table(file: Path, rows: Sequence[Sequence[str]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)


def read_table(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))
