"""Decides which QUEUED runs start now: first in, first out, whole gangs or nothing.

Pure: the same queue, load and cluster give the same decision; it knows no clock, no store and no Ray. The head of the
line is never overtaken, so a big gang doesn't starve; a run that the whole cluster could never hold is set aside with
its reason and blocks nobody.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

POOLED_KINDS = ("finetune", "distill", "detoxify")
"""The kinds that use ``num_workers``; the others are one worker."""


@dataclass(frozen=True)
class Ask:
    """What a run wants: so many workers, each with so much."""

    num_workers: int
    cpus: int
    gpus: float

    @property
    def total_cpus(self) -> int:
        """CPUs of all workers."""
        return self.num_workers * self.cpus

    @property
    def total_gpus(self) -> float:
        """GPUs of all workers."""
        return self.num_workers * self.gpus

    def __str__(self) -> str:
        """For a reason that people read."""
        return f"{self.num_workers} × ({_amounts(self.cpus, self.gpus)})"


@dataclass(frozen=True)
class Node:
    """One machine of the cluster; totals, not what is free."""

    cpus: float
    gpus: float = 0


@dataclass(frozen=True)
class Capacity:
    """The living machines of the cluster."""

    nodes: tuple[Node, ...]

    @property
    def cpus(self) -> float:
        """CPUs of all machines."""
        return sum(node.cpus for node in self.nodes)

    @property
    def gpus(self) -> float:
        """GPUs of all machines."""
        return sum(node.gpus for node in self.nodes)

    def could_hold(self, ask: Ask) -> bool:
        """Whether the empty cluster has room; a worker is never spread over machines."""
        return sum(_places(node, ask) for node in self.nodes) >= ask.num_workers

    def __str__(self) -> str:
        """For a reason that people read."""
        return _amounts(self.cpus, self.gpus) + (f" on {len(self.nodes)} nodes" if len(self.nodes) != 1 else "")


@dataclass(frozen=True)
class Decision:
    """What the queue's turn has come to."""

    start: tuple[str, ...]
    """Runs to start, in this order."""
    waiting: Mapping[str, str]
    """Run → what it waits for, where there is something to say."""
    impossible: frozenset[str]
    """Of the waiting ones, those that the whole cluster could not hold."""


def ask_of(spec: Mapping[str, Any]) -> Ask:
    """What a resolved spec asks for."""
    resources = spec.get("resources", {})
    asked = (spec.get("training") or {}).get("num_workers") or resources.get("num_workers", 1)
    num_workers = int(asked) if spec.get("kind") in POOLED_KINDS else 1
    return Ask(num_workers, int(resources.get("cpus", 1)), float(resources.get("gpus", 0)))


def decide(queue: Sequence[tuple[str, Ask]], load: Iterable[Ask], capacity: Capacity) -> Decision:
    """Start runs from the head of the queue for as long as the next one fits.

    Args:
        queue: run and ask, oldest first.
        load: what the attempts under way use.
        capacity: the living cluster.
    """
    taken = list(load)
    free_cpus = capacity.cpus - sum(ask.total_cpus for ask in taken)
    free_gpus = capacity.gpus - sum(ask.total_gpus for ask in taken)
    start: list[str] = []
    waiting: dict[str, str] = {}
    impossible: set[str] = set()
    blocked = False
    for run_id, ask in queue:
        if not capacity.could_hold(ask):
            impossible.add(run_id)
            waiting[run_id] = f"asks for {ask}, and the whole cluster has {capacity}; lower resources or add nodes"
        elif blocked or ask.total_cpus > free_cpus or ask.total_gpus > free_gpus:
            waiting[run_id] = "waits for the runs before it" if blocked else f"waits for {ask} to become free"
            blocked = True
        else:
            start.append(run_id)
            free_cpus -= ask.total_cpus
            free_gpus -= ask.total_gpus
    return Decision(tuple(start), waiting, frozenset(impossible))


def _places(node: Node, ask: Ask) -> int:
    by_cpus = math.floor(node.cpus / ask.cpus)
    return by_cpus if not ask.gpus else min(by_cpus, math.floor(node.gpus / ask.gpus))


def _amounts(cpus: float, gpus: float) -> str:
    words = f"{cpus:g} CPU" + ("" if cpus == 1 else "s")
    return words + (f", {gpus:g} GPU" + ("" if gpus == 1 else "s") if gpus else "")
