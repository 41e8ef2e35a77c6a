"""How runs and figures look on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from api.cli.scores import WIDTH, score_tables
from api.cli.watch import describe

if TYPE_CHECKING:
    from api.schemas import ArtifactView, MetricsView, RunDetail, RunView, SeriesView, SummaryView
    from cluster.keys import ApiKey

_COLOURS = {"SUCCEEDED": "green", "FAILED": "red", "CANCELLED": "yellow", "RUNNING": "cyan", "STARTING": "cyan"}
_WIDTH = 140
"""Columns where there is no terminal: a log or a pipe wraps nothing itself."""
_WIDEST = 10_000
"""Columns that nobody's table needs."""


def render(table: Table) -> None:
    """Print a table."""
    console().print(table)


def console() -> Console:
    """The terminal, or a wide page where there is none."""
    found = Console()
    return found if found.is_terminal else Console(width=_WIDTH)


def runs_table(runs: Sequence[RunView]) -> Table:
    """One line for each run."""
    table = _table("run", "name", "kind", "owner", "state", "submitted", "took", "")
    for run in runs:
        name = f"{run.step} (step)" if run.step else run.name or ""
        table.add_row(
            run.id, escape(name), run.kind, escape(run.owner), _state(run), _when(run), _took(run), _note(run)
        )
    return table


def print_run(run: RunDetail) -> None:
    """What is known of one run, and its steps."""
    page = console()
    details = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    rows = {
        "run": run.id,
        "name": escape(run.name or ""),
        "kind": run.kind,
        "owner": escape(run.owner),
        "state": _state(run) + (" (cancel requested)" if run.cancel_requested and not run.state.is_terminal else ""),
        "reason": escape(run.reason or ""),
        "step": f"{escape(run.step)} of {run.parent}" if run.step else "",
        "submitted": _when(run),
        "took": _took(run),
        "attempt": str(run.epoch) if run.epoch else "",
        "tried again": _again(run),
        "progress": "" if run.state.is_terminal else escape(describe(run.progress)),
        "output": escape(run.output or ""),
    }
    for label, value in rows.items():
        if value:
            details.add_row(f"[dim]{label}[/dim]", value)
    page.print(details, soft_wrap=True)
    if run.children:
        steps = _table("step", "run", "kind", "state", "took", "")
        for child in run.children:
            steps.add_row(child.step, child.id, child.kind, _state(child), _took(child), _note(child))
        page.print(steps)


def print_metrics(run: RunView, metrics: MetricsView, *, with_points: bool, wide: bool = False) -> bool:
    """The figures of one run; whether there were any. ``wide`` shows systems × metrics in one table, unwrapped."""
    if not metrics.series and not metrics.summaries:
        return False
    page = console()
    page.print(f"[bold]{escape(run.step or run.name or run.kind)}[/bold]  {run.id}  {_state(run)}")
    if with_points:
        for series in metrics.series:
            page.print(_points_table(series))
        return True
    final = {item.metric for item in metrics.summaries if not item.system}
    # A figure that was told once and is final says the same twice.
    live = [series for series in metrics.series if series.num_points > 1 or series.name not in final]
    if live:
        page.print(_series_table(live))
    of_systems = [item for item in metrics.summaries if item.system]
    others = [item for item in metrics.summaries if not item.system]
    if of_systems and wide:
        Console(width=_WIDEST).print(_systems_table(of_systems))
    elif of_systems:
        narrow = page if page.is_terminal else Console(width=WIDTH)
        for table in score_tables(of_systems):
            narrow.print(table)
            narrow.print()
    if others:
        page.print(_figures_table(others))
    return True


def artifacts_table(found: Sequence[tuple[RunView, ArtifactView]]) -> Table:
    """One line for each artifact."""
    with_steps = any(run.step for run, _ in found)
    table = _table(*(["step"] if with_steps else []), "run", "artifact", "files", "bytes")
    for run, item in found:
        files = f"{item.num_files:,}" if item.num_files else "not on the API's machine"
        step = [escape(run.step or "")] if with_steps else []
        table.add_row(*step, run.id, escape(item.name), files, f"{item.num_bytes:,}")
    return table


def keys_table(found: Sequence[ApiKey]) -> Table:
    """One line for each key of the API."""
    table = _table("prefix", "owner", "role", "name", "made", "revoked")
    for key in found:
        revoked = "" if key.revoked_at is None else _moment(key.revoked_at)
        table.add_row(key.prefix, escape(key.owner), key.role, escape(key.name), _moment(key.created_at), revoked)
    return table


def _systems_table(figures: Sequence[SummaryView]) -> Table:
    """Systems by row, metrics by column."""
    metrics = list(dict.fromkeys(item.metric for item in figures))
    cells = {(item.system, item.metric): item for item in figures}
    table = _table("system", *(metric.replace("_", " ") for metric in metrics))
    for system in dict.fromkeys(item.system for item in figures):
        row = [cells.get((system, metric)) for metric in metrics]
        table.add_row(escape(system), *(_interval(item) if item else "" for item in row))
    return table


def _figures_table(figures: Sequence[SummaryView]) -> Table:
    table = _table("figure", "value")
    for item in figures:
        table.add_row(escape(item.metric), _interval(item))
    return table


def _series_table(series: Sequence[SeriesView]) -> Table:
    table = _table("live figure", "points", "first", "last", "lowest", "highest")
    for item in series:
        values = [point.value for point in item.points if point.value is not None]
        ends = [item.points[0].value, item.points[-1].value, min(values, default=None), max(values, default=None)]
        table.add_row(escape(item.name), f"{item.num_points:,}", *(_number(value) for value in ends))
    return table


def _points_table(series: SeriesView) -> Table:
    table = _table("step", escape(series.name))
    for point in series.points:
        table.add_row(str(point.step), _number(point.value))
    return table


def _table(*headings: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _state(run: RunView) -> str:
    colour = _COLOURS.get(run.state)
    return f"[{colour}]{run.state}[/{colour}]" if colour else str(run.state)


def _note(run: RunView) -> str:
    return escape(run.reason or ("" if run.state.is_terminal else describe(run.progress)))


def _again(run: RunView) -> str:
    if run.state != "QUEUED" or run.retry_at is None:
        return ""
    seconds = (run.retry_at - datetime.now(UTC)).total_seconds()
    return f"in {seconds:.0f} s" if seconds > 0 else "when there is room"


def _when(run: RunView) -> str:
    return _moment(run.created_at)


def _moment(at: datetime) -> str:
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _took(run: RunView) -> str:
    if run.started_at is None:
        return ""
    seconds = ((run.finished_at or datetime.now(UTC)) - run.started_at).total_seconds()
    minutes = int(seconds // 60)
    return f"{seconds:.1f} s" if not minutes else f"{minutes} min {seconds % 60:.0f} s"


def _interval(item: SummaryView) -> str:
    ends = f" [{_number(item.low)}, {_number(item.high)}]" if item.low is not None and item.high is not None else ""
    return escape(f"{_number(item.value)}{ends}")


def _number(value: float | None) -> str:
    if value is None:
        return "none"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"
