"""Pages of runs: newest first, each page beginning where the one before ended, whatever was submitted in between."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.runs import Run, State
from cluster.store import Store

MAX_LIMIT = 200
MAX_SCANNED = 2000
"""Runs that are looked at for one page when names are searched: a rare name may give a short page with a cursor."""


@dataclass(frozen=True)
class Question:
    """Which runs are asked for; None is any."""

    owner: str | None = None
    state: State | None = None
    kind: str | None = None
    parent: str | None = None
    top_level: bool = False
    name: str | None = None
    """Part of the name or of the step's name, in any case."""


@dataclass(frozen=True)
class Page:
    """Some runs, and the cursor of the next page; None on the last one."""

    runs: list[Run]
    next_cursor: str | None


def find_runs(store: Store, question: Question, *, limit: int, cursor: str | None) -> Page:
    """One page of at most ``limit`` runs that were submitted before the run ``cursor``."""
    found: list[Run] = []
    scanned = 0
    while True:
        # One more than is shown tells whether another page follows.
        batch = _batch(store, question, MAX_LIMIT if question.name else limit + 1, cursor)
        for run in batch:
            if len(found) == limit:
                return Page(found, cursor)
            cursor, scanned = run.id, scanned + 1
            if _has_name(run, question.name):
                found.append(run)
        if len(batch) < (MAX_LIMIT if question.name else limit + 1):
            return Page(found, None)
        if scanned >= MAX_SCANNED:
            return Page(found, cursor)


def children_of(store: Store, run: Run) -> list[Run]:
    """Runs of a pipeline's steps in the order of its spec; none for another kind."""
    if run.kind != "pipeline":
        return []
    order = {step: position for position, step in enumerate(run.spec["steps"])}
    children = store.list(parent=run.id, limit=max(1, len(order)))
    return sorted(children, key=lambda child: order.get(child.step or "", len(order)))


def _batch(store: Store, question: Question, limit: int, cursor: str | None) -> list[Run]:
    return store.list(
        owner=question.owner,
        state=question.state,
        kind=question.kind,
        parent=question.parent,
        top_level=question.top_level,
        limit=limit,
        before=cursor,
    )


def _has_name(run: Run, part: str | None) -> bool:
    return part is None or any(part.casefold() in text.casefold() for text in (run.name, run.step) if text)
