"""What a finished quickstart prints: the table of systems, the steps' times, three rewrites, and how to ask again."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from api.cli.detoxify import OUTCOMES
from api.cli.watch import seconds_of, steps_of

if TYPE_CHECKING:
    from cluster.runs import Run
    from cluster.store import Store
    from configs.settings import Settings
    from jobs.context import Summary

MEASURES = {
    "style": "style",
    "style_share": "not toxic",
    "content_source": "content vs. source",
    "content_reference": "content vs. reference",
    "fluency": "fluency",
    "joint": "joint",
}
"""Metric → heading, each shown with its 95 % interval."""
NUM_EXAMPLES = 3
WIDTH = 132
"""Where there is no terminal that says its own."""


def print_report(store: Store, run: Run, *, settings: Settings, seconds: float, peak_bytes: int) -> None:
    """Print the report of a pipeline that SUCCEEDED."""
    console = Console(width=None if Console().is_terminal else WIDTH)
    steps = {step.step: step for step in steps_of(store, run)}
    for step in steps.values():
        if step.kind == "evaluate":
            summaries = list(store.summaries(step.id))
            console.print(results_table(summaries))
            for line in differences(summaries):
                console.print(line, highlight=False)
    console.print(times(list(steps.values()), seconds), highlight=False)
    console.print(f"peak memory of all processes: {peak_bytes / 1e9:.1f} GB", highlight=False)
    for step in steps.values():
        if step.kind == "detoxify":
            _print_rewrites(console, store, step)
    console.print("\nAsk again, through the API:")
    home = "" if settings.home == Path(".distox").absolute() else f"DISTOX_HOME={settings.home} "
    scores = next((step.id for step in steps.values() if step.kind == "evaluate"), run.id)
    for command in (
        f"{home}distox up",
        f'eval "$({home}distox env)"',
        f"distox show {run.id}",
        f"distox metrics {scores}",
        f'curl -s -H "Authorization: Bearer $DISTOX_API_KEY" $DISTOX_API_URL/v1/runs/{scores}/table',
        "distox detoxify YOUR.csv --text-column comment",
        f"{home}distox down",
    ):
        console.print(f"  {command}", soft_wrap=True, highlight=False)


def results_table(summaries: list[Summary]) -> Table:
    """Systems by row; style, content, fluency and joint with their intervals, then size and speed."""
    values = {(item.system, item.metric): item for item in summaries}
    systems = list(dict.fromkeys(item.system for item in summaries if item.metric == "joint"))
    rows = values[systems[0], "joint"].count if systems else 0
    table = Table(
        title=f"{rows} test rows, embedded judges; 95 % bootstrap intervals", title_justify="left", show_lines=True
    )
    table.add_column("system")
    for heading in (*MEASURES.values(), "parameters", "on disk", "rows/s"):
        table.add_column(heading, justify="right")
    for system in systems:
        cells = [_interval(values.get((system, metric))) for metric in MEASURES]
        cells.append(_number(values.get((system, "parameters")), "{:,.0f}"))
        cells.append(_number(values.get((system, "bytes_on_disk")), "{:.1f} MB", scale=1e-6))
        cells.append(_number(values.get((system, "rows_per_second")), "{:,.0f}"))
        table.add_row(system, *cells)
    return table


def differences(summaries: list[Summary]) -> list[str]:
    """How much better each model's joint is than the controls', paired on the same rows; a line for each model."""
    values = {(item.system, item.metric): item for item in summaries}
    return [
        f"joint of {system}: "
        + ", ".join(
            f"{item.value:+.3f} against {control} ({item.low:.3f}–{item.high:.3f})"
            for control in ("copy", "delete")
            if (item := values.get((system, f"joint_minus_{control}"))) is not None and item.low is not None
        )
        for system in dict.fromkeys(item.system for item in summaries if item.metric == "joint_minus_copy")
    ]


def times(steps: list[Run], seconds: float) -> str:
    """Wall time of each step and of the whole, start and stop of the stack included."""
    parts = [f"{step.step or step.kind} {took:.0f}" for step in steps if (took := seconds_of(step)) is not None]
    return f"\nseconds: {', '.join(parts)}; in all {seconds:.0f}"


def _print_rewrites(console: Console, store: Store, step: Run) -> None:
    artifact = next(item for item in store.artifacts(step.id) if item.name == "rows")
    file = Path(artifact.path)
    column = step.spec["input"]["text_column"]
    statuses: Counter[str] = Counter()
    examples: dict[str, str] = {}
    with file.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            statuses[row["distox_status"]] += 1
            is_short = row["distox_status"] == "rewritten" and "\n" not in row[column]
            if is_short and len(examples) < NUM_EXAMPLES:
                examples[row[column]] = row["detoxified"]
    counts = ", ".join(f"{statuses[status]:,} {status}" for status in OUTCOMES if statuses[status])
    console.print(f"\n{statuses.total():,} comments: {counts}", highlight=False)
    shown = file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file
    console.print(f"[bold]{shown}[/bold]", soft_wrap=True, highlight=False)
    for comment, rewrite in examples.items():
        console.print(f"  - {comment}", markup=False, highlight=False, soft_wrap=True)
        console.print(f"  + {rewrite}", markup=False, highlight=False, soft_wrap=True)


def _interval(item: Summary | None) -> str:
    """The mean, and its interval on a line of its own: a table of both stays narrow."""
    if item is None:
        return ""
    if item.low is None or item.high is None:
        return f"{item.value:.3f}"
    return f"{item.value:.3f}\n{item.low:.3f}–{item.high:.3f}"


def _number(item: Summary | None, form: str, *, scale: float = 1.0) -> str:
    return "" if item is None else form.format(item.value * scale)
