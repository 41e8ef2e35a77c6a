"""Watches a run to its end: a live bar for each step on a terminal, plain lines elsewhere.

It reads the store and changes nothing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from cluster.runs import Run
    from cluster.store import Store

POLL_SECONDS = 0.25
SHOWN = (
    "epoch",
    "loss",
    "ce",
    "kd",
    "validation_loss",
    "rows_done",
    "rows_quarantined",
    "rows_per_second",
    "systems_done",
)
"""Live figures that are worth a glance, in this order."""
LINE_SECONDS = 10.0
"""Between two progress lines of a step where there is no terminal."""
CHECK_SECONDS = 3.0
"""Between two calls of ``check``; looking at every process of the machine takes some milliseconds."""


def watch(store: Store, run_id: str, *, check: Callable[[], None] = lambda: None) -> Run:
    """Show progress until the run has ended, and return it as it ended.

    Args:
        store: is read only.
        run_id: of the run to watch.
        check: called every few seconds; what it raises ends the watch, so that nobody waits for what can't come.
    """
    look = _Looker(store, run_id, check)
    return _watch_bars(store, look) if sys.stdout.isatty() else _watch_lines(store, look)


def steps_of(store: Store, run: Run) -> list[Run]:
    """The steps of a pipeline in the order of its spec; the run itself for another kind."""
    if run.kind != "pipeline":
        return [run]
    order = {name: index for index, name in enumerate(run.spec["steps"])}
    return sorted(store.list(parent=run.id, limit=200), key=lambda child: order.get(child.step or "", len(order)))


def seconds_of(run: Run) -> float | None:
    """Wall time from its first attempt's start to its end; None before that."""
    if run.started_at is None or run.finished_at is None:
        return None
    return (run.finished_at - run.started_at).total_seconds()


def describe(progress: Mapping[str, Any]) -> str:
    """The live figures in one short line."""
    words = [f"{key.replace('_', ' ')} {progress[key]:.3g}" for key in SHOWN if progress.get(key) is not None]
    if (remaining := progress.get("eta_seconds")) is not None:
        words.append(f"{remaining:.0f} s left")
    return ", ".join(words)


def share_done(progress: Mapping[str, Any]) -> float | None:
    """How much of the step is done, 0 to 1; None where the job doesn't say."""
    value = progress.get("share_done")
    return None if value is None else max(0.0, min(1.0, float(value)))


class _Looker:
    """Reads the run now, and sees after the rest now and then."""

    def __init__(self, store: Store, run_id: str, check: Callable[[], None]) -> None:
        self._store, self._run_id, self._check = store, run_id, check
        self._checked = time.monotonic()

    def __call__(self) -> Run:
        run = self._store.get(self._run_id)
        if not run.state.is_terminal and time.monotonic() - self._checked > CHECK_SECONDS:
            self._check()
            self._checked = time.monotonic()
        return run


def _watch_bars(store: Store, look: Callable[[], Run]) -> Run:
    columns = (
        SpinnerColumn(finished_text=" "),
        TextColumn("{task.description:<20}"),
        TextColumn("{task.fields[state]:<9}"),
        BarColumn(bar_width=28),
        TimeElapsedColumn(),
        TextColumn("{task.fields[figures]}", style="dim"),
    )
    bars: dict[str, TaskID] = {}
    with Progress(*columns, console=Console()) as display:
        while True:
            run = look()
            for step in steps_of(store, run):
                if step.id not in bars:
                    bars[step.id] = display.add_task(
                        step.step or step.kind, total=None, start=False, state="", figures=""
                    )
                _update_bar(display, bars[step.id], step)
            if run.state.is_terminal:
                return run
            time.sleep(POLL_SECONDS)


def _update_bar(display: Progress, bar: TaskID, step: Run) -> None:
    task = display.tasks[bar]
    if step.started_at is not None and not task.started:
        display.start_task(bar)
    done = 1.0 if step.state.value == "SUCCEEDED" else share_done(step.progress)
    waiting = step.reason if not step.state.has_attempt and step.reason else describe(step.progress)
    display.update(
        bar,
        total=1.0 if done is not None or step.state.is_terminal else None,
        completed=done or 0.0,
        state=step.state.value.lower(),
        figures="" if step.state.value == "SUCCEEDED" else waiting,
    )
    if step.state.is_terminal:
        display.stop_task(bar)


def _watch_lines(store: Store, look: Callable[[], Run]) -> Run:
    shown: dict[str, str] = {}
    spoken: dict[str, float] = {}
    while True:
        run = look()
        now = time.monotonic()
        for step in steps_of(store, run):
            name = step.step or step.kind
            if shown.get(step.id) != step.state.value:
                shown[step.id], spoken[step.id] = step.state.value, now
                seconds = seconds_of(step)
                took = f" after {seconds:.1f} s" if seconds is not None else ""
                reason = f": {step.reason}" if step.reason and step.state.is_terminal else ""
                print(f"{name:<20} {step.state.value.lower()}{took}{reason}", flush=True)
            elif (
                step.state.has_attempt and now - spoken[step.id] > LINE_SECONDS and (figures := describe(step.progress))
            ):
                spoken[step.id] = now
                print(f"{name:<20} {figures}", flush=True)
        if run.state.is_terminal:
            return run
        time.sleep(POLL_SECONDS)
