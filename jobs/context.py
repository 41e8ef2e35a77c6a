"""What a job is given and what it gives back: the only things that cross from ``jobs`` to the rooms above.

A job is a function ``run(spec, context) -> JobResult``. It writes its files into ``context.output`` and nowhere else,
reports live metrics through ``context.report`` and looks at ``context.should_stop`` at every task or step border. It
knows neither the store, nor Redis, nor Ray.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

Report = Callable[[Mapping[str, float], int], None]
"""``report({"loss": 1.2}, step)``: live figures at a step; cheap, may be called often, never waits for the store."""


class JobStopped(Exception):  # noqa: N818 (an outcome that unwinds a loop, not an error)
    """``should_stop`` said so: the job ended early and its output is incomplete."""


@dataclass(frozen=True)
class JobContext:
    """The surroundings of one attempt."""

    output: Path
    """A local folder that exists and is the job's alone."""
    report: Report
    should_stop: Callable[[], bool]
    num_threads: int = 1
    """CPU threads the job may use."""
    checkpoints: Path | None = None
    """A folder that the attempts of a run share, for a training to be taken up from; None: nothing is kept."""
    cache: Path | None = None
    """A folder that all runs of a storage share, for what is costly to make and safe to lose; None: nothing outlives
    the run."""
    epoch: int = 1
    """The attempt's number, so that two attempts never write the same checkpoint."""


@dataclass(frozen=True)
class Summary:
    """One final figure of a run."""

    metric: str
    """``style``, ``content_source``, ``joint``, ``loss``, …"""
    value: float
    system: str = ""
    """The row of an evaluation's table; empty elsewhere."""
    low: float | None = None
    """Ends of the 95 % interval, where there is one."""
    high: float | None = None
    count: int | None = None
    """Rows behind the figure."""


@dataclass(frozen=True)
class JobResult:
    """What a finished job leaves behind."""

    artifacts: Mapping[str, str]
    """Name → path relative to ``context.output``; holds every name that ``OUTPUTS`` promises for the kind."""
    summaries: Sequence[Summary] = field(default_factory=tuple)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {"artifacts": dict(self.artifacts), "summaries": [asdict(item) for item in self.summaries]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> JobResult:
        """The reverse of ``as_dict``."""
        return cls(dict(data["artifacts"]), tuple(Summary(**item) for item in data["summaries"]))
