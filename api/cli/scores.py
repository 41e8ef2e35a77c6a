"""How the figures of an evaluation look on a terminal of 100 columns: a table for each question, systems by row."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from rich.markup import escape
from rich.table import Table

WIDTH = 100
"""Columns that every table fits into, with systems' names of up to 18 characters."""
DIFFERENCES = "joint, paired on the same rows"
"""Title of the last table."""
OTHERS = "others"
"""Title of what has no table of its own."""
_DIFFERENCE = re.compile(r"joint_minus_(?P<other>.+?)(?P<p>_p_value)?$")


class Figure(Protocol):
    """A final figure, from the store or from the API."""

    @property
    def metric(self) -> str:
        """Its name."""

    @property
    def system(self) -> str:
        """The row of the table."""

    @property
    def value(self) -> float | None:
        """None where it is no finite number."""

    @property
    def low(self) -> float | None:
        """Lower end of the 95 % interval."""

    @property
    def high(self) -> float | None:
        """Upper end of it."""


@dataclass(frozen=True)
class Column:
    """A metric, and how it is shown."""

    heading: str
    form: str = ""
    """Empty: three decimals, fewer for large numbers."""
    scale: float = 1.0


TABLES: dict[str, dict[str, Column]] = {
    "quality": {
        "style": Column("style"),
        "style_share": Column("not toxic"),
        "content_source": Column("content vs. source"),
        "content_reference": Column("content vs. reference"),
        "fluency": Column("fluency"),
        "joint": Column("joint"),
    },
    "wording": {
        "chrf": Column("chrF", "{:.1f}"),
        "copy_rate": Column("copies"),
        "length_ratio": Column("length ratio"),
        "inverse_perplexity": Column("1/PPL", "{:.4f}"),
        "perplexity_corpus": Column("corpus PPL"),
        "perplexity_median": Column("median PPL"),
    },
    "speed": {
        "rows_per_second": Column("rows per second", "{:,.3g}"),
        "latency_p50_seconds": Column("latency p50", "{:,.1f} ms", 1e3),
        "latency_p95_seconds": Column("latency p95", "{:,.1f} ms", 1e3),
        "speedup": Column("times faster", "{:.2f}"),
        "latency_speedup": Column("one by one", "{:.2f}"),
    },
    "size": {
        "parameters": Column("parameters", "{:,.0f}"),
        "bytes_on_disk": Column("on disk", "{:,.1f} MB", 1e-6),
        "model_memory_bytes": Column("memory of model", "{:,.0f} MB", 1e-6),
        "peak_memory_bytes": Column("peak of process", "{:,.0f} MB", 1e-6),
        "memory_ratio": Column("memory ratio", "{:.2f}"),
    },
}
"""Title → metric → column; what stands in none is shown under its own name."""
_COLUMNS_OF_OTHERS = 5


def score_tables(figures: Sequence[Figure], *, titles: Collection[str] | None = None) -> Iterator[Table]:
    """The tables that have anything to show, in order; the joint's differences last.

    Only those of ``titles``, if given.
    """
    values = {(item.system, item.metric): item for item in figures}
    systems = list(dict.fromkeys(item.system for item in figures))
    for title, columns in _grouped(figures):
        rows = [name for name in systems if any((name, metric) in values for metric in columns)]
        if not rows or (titles is not None and title not in titles):
            continue
        table = _table(title, "system")
        shown = {metric: column for metric, column in columns.items() if any((row, metric) in values for row in rows)}
        for column in shown.values():
            table.add_column(column.heading, justify="right")
        for name in rows:
            table.add_row(escape(name), *(_cell(values.get((name, metric)), item) for metric, item in shown.items()))
        yield table
    differences = list(_differences(figures))
    if differences and (titles is None or DIFFERENCES in titles):
        table = _table(DIFFERENCES, "system", "minus")
        for heading in ("difference", "95 % interval", "p"):
            table.add_column(heading, justify="right")
        for row in differences:
            table.add_row(*row)
        yield table


def _grouped(figures: Sequence[Figure]) -> Iterator[tuple[str, dict[str, Column]]]:
    yield from TABLES.items()
    known = {metric for columns in TABLES.values() for metric in columns}
    others = [
        metric
        for metric in dict.fromkeys(item.metric for item in figures)
        if metric not in known and not _DIFFERENCE.match(metric)
    ]
    for start in range(0, len(others), _COLUMNS_OF_OTHERS):
        part = others[start : start + _COLUMNS_OF_OTHERS]
        yield OTHERS, {metric: Column(escape(metric.replace("_", " "))) for metric in part}


def _differences(figures: Sequence[Figure]) -> Iterator[list[str]]:
    """System, other, difference, interval, p-value."""
    values = {(item.system, item.metric): item for item in figures}
    for item in figures:
        match = _DIFFERENCE.match(item.metric)
        if match is None or match["p"] or item.value is None:
            continue
        p_value = values.get((item.system, f"{item.metric}_p_value"))
        interval = "" if item.low is None or item.high is None else f"{item.low:+.3f} to {item.high:+.3f}"
        p = "" if p_value is None or p_value.value is None else f"{p_value.value:.3f}"
        yield [escape(item.system), escape(match["other"]), f"{item.value:+.3f}", interval, p]


def _table(title: str, *headings: str) -> Table:
    table = Table(
        box=None, padding=(0, 2, 0, 0), header_style="bold", title=title, title_justify="left", title_style="bold dim"
    )
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _cell(item: Figure | None, column: Column) -> str:
    """The figure, and its interval on a line of its own: a table of both stays narrow."""
    if item is None:
        return ""
    if item.value is None:
        return "none"
    shown = _number(item.value * column.scale, column.form)
    if item.low is None or item.high is None:
        return shown
    low, high = (_number(end * column.scale, column.form) for end in (item.low, item.high))
    return f"{shown}\n[dim]{low}–{high}[/dim]"


def _number(value: float, form: str) -> str:
    return form.format(value) if form else f"{value:.3f}" if abs(value) < 10 else f"{value:,.1f}"
