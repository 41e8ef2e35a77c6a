"""What a pipeline does next: which steps become ready, and when it has ended and how.

Pure: it looks at the pipeline's spec and at the runs of its steps. Storing and starting is the reconciler's work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from cluster.runs import Run, State
from configs.load import validate_spec
from configs.schema.kinds import AnySpec, Pipeline
from configs.schema.references import resolve_references


@dataclass(frozen=True)
class Moves:
    """What follows from the states of the steps."""

    ready: tuple[str, ...] = ()
    """PENDING steps whose predecessors have all SUCCEEDED."""
    cancel: tuple[str, ...] = ()
    """Steps to be cancelled because another one has failed or was cancelled."""
    outcome: State | None = None
    """The pipeline's end, once every step has ended."""
    reason: str | None = None


def step_specs(run: Run) -> dict[str, AnySpec]:
    """The specs of a pipeline's steps in an order in which each comes after those it waits for.

    A step without a name is called after the pipeline and itself; without an output of its own it writes into a folder
    of the pipeline's.
    """
    pipeline = run.load_spec()
    if not isinstance(pipeline, Pipeline):
        raise TypeError(f"{run.id} is a {run.kind}, not a pipeline")
    title = run.name or run.id
    specs: dict[str, AnySpec] = {}
    for step in sorted(pipeline.steps, key=pipeline.order().index):
        spec = pipeline.steps[step]
        output = spec.output or (str(PurePosixPath(pipeline.output) / step) if pipeline.output else None)
        specs[step] = spec.model_copy(update={"name": spec.name or f"{title}/{step}", "output": output})
    return specs


def next_moves(pipeline: Run, steps: Mapping[str, Run]) -> Moves:
    """What to do now.

    The first failure cancels what has not ended; the pipeline's own end comes when all steps have theirs, so that
    nothing of it runs any more.
    """
    spec = pipeline.load_spec()
    if not isinstance(spec, Pipeline):
        raise TypeError(f"{pipeline.id} is a {pipeline.kind}, not a pipeline")
    open_steps = tuple(name for name, run in steps.items() if not run.state.is_terminal)
    bad = _first_bad(steps)
    if bad is not None or pipeline.cancel_requested:
        if open_steps:
            return Moves(cancel=tuple(name for name in open_steps if not steps[name].cancel_requested))
        return _end_badly(pipeline, bad)
    if not open_steps:
        return Moves(outcome=State.SUCCEEDED)
    before = spec.predecessors()
    ready = tuple(
        name
        for name in open_steps
        if steps[name].state is State.PENDING
        and all(steps[needed].state is State.SUCCEEDED for needed in before.get(name, ()))
    )
    return Moves(ready=ready)


def resolve_step(run: Run, lookup: Callable[[str, str], str]) -> AnySpec:
    """The step's spec with each reference replaced by the path that ``lookup(step, output)`` gives.

    Raises:
        SpecError: the result is no valid spec.
    """
    resolved: dict[str, Any] = resolve_references(run.spec, lookup)
    return validate_spec(resolved, source=run.id)


def _first_bad(steps: Mapping[str, Run]) -> Run | None:
    bad = [run for run in steps.values() if run.state in (State.FAILED, State.CANCELLED)]
    # A failure explains more than the cancellations that it brought about.
    return min(bad, key=lambda run: (run.state is not State.FAILED, run.finished_at or run.state_at), default=None)


def _end_badly(pipeline: Run, bad: Run | None) -> Moves:
    if pipeline.cancel_requested:
        return Moves(outcome=State.CANCELLED, reason="cancelled on request")
    if bad is None:
        return Moves(outcome=State.SUCCEEDED)
    if bad.state is State.FAILED:
        return Moves(outcome=State.FAILED, reason=f"step {bad.step} failed: {bad.reason or 'no reason recorded'}")
    return Moves(outcome=State.CANCELLED, reason=f"step {bad.step} was cancelled")
