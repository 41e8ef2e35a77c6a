"""What a finished quickstart prints: the tables of systems, the steps' times, three rewrites, and how to ask again."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from api.cli.detoxify import OUTCOMES
from api.cli.scores import DIFFERENCES, WIDTH, score_tables
from api.cli.watch import seconds_of, steps_of

if TYPE_CHECKING:
    from cluster.runs import Run
    from cluster.store import Store
    from configs.settings import Settings
    from jobs.context import Summary

NUM_EXAMPLES = 3
TITLES = ("quality", "speed", "size", DIFFERENCES)
"""Of the tables that are shown; ``distox metrics`` has them all."""


def print_report(store: Store, run: Run, *, settings: Settings, seconds: float, peak_bytes: int) -> None:
    """Print the report of a pipeline that SUCCEEDED."""
    console = Console(width=None if Console().is_terminal else WIDTH)
    steps = {step.step: step for step in steps_of(store, run)}
    for step in steps.values():
        if step.kind == "evaluate":
            _print_scores(console, list(store.summaries(step.id)))
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


def times(steps: list[Run], seconds: float) -> str:
    """Wall time of each step and of the whole, start and stop of the stack included."""
    parts = [f"{step.step or step.kind} {took:.0f}" for step in steps if (took := seconds_of(step)) is not None]
    return f"\nseconds: {', '.join(parts)}; in all {seconds:.0f}"


def _print_scores(console: Console, summaries: list[Summary]) -> None:
    rows = next((item.count for item in summaries if item.metric == "joint"), None)
    console.print(f"{rows} test rows, embedded judges; 95 % bootstrap intervals\n", highlight=False)
    for table in score_tables(summaries, titles=TITLES):
        console.print(table)
        console.print()


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
