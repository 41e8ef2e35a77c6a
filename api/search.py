"""Pages of runs: newest first, each page beginning where the one before ended, whatever was submitted in between."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.runs import Run, State
from cluster.store import Store

MAX_LIMIT = 200


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
    found = store.list(
        owner=question.owner,
        state=question.state,
        kind=question.kind,
        parent=question.parent,
        name_contains=question.name,
        top_level=question.top_level,
        # One more than is shown tells whether another page follows.
        limit=limit + 1,
        before=cursor,
    )
    runs = found[:limit]
    return Page(runs, runs[-1].id if len(found) > limit else None)


def children_of(store: Store, run: Run) -> list[Run]:
    """Runs of a pipeline's steps in the order of its spec; none for another kind."""
    if run.kind != "pipeline":
        return []
    order = {step: position for position, step in enumerate(run.spec["steps"])}
    children = store.list(parent=run.id, limit=max(1, len(order)))
    return sorted(children, key=lambda child: order.get(child.step or "", len(order)))
