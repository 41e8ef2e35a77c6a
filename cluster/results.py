"""What a run leaves in the store besides its state: live points, final figures, artifacts, events.

Functions run inside the caller's transaction; whether the writer still may write (the epoch) is the caller's question.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.dialects import postgresql, sqlite

from cluster.runs import State
from cluster.tables import artifacts, events, points, runs, summaries
from jobs.context import JobResult, Summary


@dataclass(frozen=True)
class Point:
    """One live figure at a step; not-a-number is kept as such."""

    name: str
    step: int
    value: float


@dataclass(frozen=True)
class Artifact:
    """One thing that a run made, and where."""

    name: str
    path: str
    """Absolute."""


@dataclass(frozen=True)
class Event:
    """A change of state, or something said about a run."""

    id: int
    """Grows; a reader asks for what came after the last one it saw."""
    run_id: str
    at: datetime
    epoch: int
    state: State
    message: str | None


def add_points(connection: Connection, run_id: str, epoch: int, values: Sequence[Point]) -> None:
    """Keep points of an attempt; the last value of a name and step counts, so sending them again changes nothing."""
    unique = {(point.name, point.step): point for point in values}
    rows = [
        {"run_id": run_id, "epoch": epoch, "name": point.name, "step": point.step, "value": _number(point.value)}
        for point in unique.values()
    ]
    if not rows:
        return
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(points)
    key = [points.c.run_id, points.c.epoch, points.c.name, points.c.step]
    connection.execute(
        statement.on_conflict_do_update(index_elements=key, set_={"value": statement.excluded.value}), rows
    )


def read_points(connection: Connection, run_id: str, name: str | None) -> list[Point]:
    """Points by name and step: of the latest attempt, and of earlier ones those before its first step.

    An attempt that was taken up from a checkpoint continues a series; one that began anew replaces it.
    """
    query = select(points).where(points.c.run_id == run_id)
    if name is not None:
        query = query.where(points.c.name == name)
    rows = connection.execute(query.order_by(points.c.name, points.c.epoch.desc(), points.c.step)).all()
    series: list[Point] = []
    for _, same_name in groupby(rows, key=lambda row: row.name):
        first_step = math.inf
        kept: list[Point] = []
        for _, attempt in groupby(same_name, key=lambda row: row.epoch):
            found = [Point(row.name, row.step, math.nan if row.value is None else row.value) for row in attempt]
            kept = [point for point in found if point.step < first_step] + kept
            first_step = min(first_step, found[0].step)
        series += kept
    return series


def replace_result(connection: Connection, run_id: str, result: JobResult) -> None:
    """Make the figures and artifacts of a run those of ``result``."""
    connection.execute(delete(summaries).where(summaries.c.run_id == run_id))
    connection.execute(delete(artifacts).where(artifacts.c.run_id == run_id))
    rows = [
        {
            "run_id": run_id,
            "position": position,
            "metric": item.metric,
            "system": item.system,
            "value": _number(item.value),
            "low": _number(item.low),
            "high": _number(item.high),
            "count": item.count,
        }
        for position, item in enumerate(result.summaries)
    ]
    if rows:
        connection.execute(insert(summaries), rows)
    named = [{"run_id": run_id, "name": name, "path": path} for name, path in result.artifacts.items()]
    if named:
        connection.execute(insert(artifacts), named)


def read_summaries(connection: Connection, run_id: str) -> list[Summary]:
    """The final figures in the job's order; empty before the run SUCCEEDED."""
    rows = connection.execute(
        select(summaries).where(summaries.c.run_id == run_id).order_by(summaries.c.position)
    ).mappings()
    return [
        Summary(
            metric=row["metric"],
            value=math.nan if row["value"] is None else row["value"],
            system=row["system"],
            low=row["low"],
            high=row["high"],
            count=row["count"],
        )
        for row in rows
    ]


def read_artifacts(connection: Connection, run_id: str) -> list[Artifact]:
    """The artifacts with absolute paths, by name; empty before the run SUCCEEDED."""
    query = (
        select(artifacts.c.name, artifacts.c.path, runs.c.output)
        .join(runs, runs.c.id == artifacts.c.run_id)
        .where(artifacts.c.run_id == run_id)
        .order_by(artifacts.c.name)
    )
    return [Artifact(row.name, str(Path(row.output or "") / row.path)) for row in connection.execute(query)]


def add_event(
    connection: Connection, run_id: str, *, at: datetime, epoch: int, state: State, message: str | None
) -> None:
    """Append one event."""
    values = {"run_id": run_id, "at": at, "epoch": epoch, "state": str(state), "message": message}
    connection.execute(insert(events).values(**values))


def read_events(connection: Connection, run_id: str, after: int) -> list[Event]:
    """The events with an id above ``after``, oldest first."""
    query = select(events).where(events.c.run_id == run_id, events.c.id > after).order_by(events.c.id)
    return [
        Event(row.id, row.run_id, row.at, row.epoch, State(row.state), row.message) for row in connection.execute(query)
    ]


def _number(value: Any) -> float | None:
    """A float that every database can keep; not-a-number becomes None."""
    if value is None or math.isnan(value):
        return None
    return float(value)
