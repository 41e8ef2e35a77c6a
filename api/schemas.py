"""What the API answers with. The client reads its answers into the same classes.

A number that JSON has no word for (not-a-number) is null. Knows neither HTTP nor the database.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, Field

from cluster.runs import Run, State

if TYPE_CHECKING:
    from configs.load import Fault
    from jobs.context import Summary

RUN_ID = r"^r-[0-9a-z]{1,40}$"
"""Form of a run's id."""


class View(BaseModel):
    """A part of an answer. A client ignores fields that it doesn't know, so that old ones read new answers."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())


class FaultView(View):
    """One thing that is wrong with a spec or a parameter."""

    field: str = Field(description="Where, as `training.batch_size` or `query.limit`.")
    value: str = Field(description="What was given, cut to 80 characters; empty where nothing was.")
    message: str
    remedy: str = Field(description="What to do about it.")

    @classmethod
    def of(cls, fault: Fault) -> Self:
        """From what the loader says."""
        return cls(field=fault.field, value=fault.value, message=fault.message, remedy=fault.remedy)


class ProblemView(View):
    """An answer that is no success (RFC 9457)."""

    type: str = Field(examples=["urn:distox:problem:not-found"])
    title: str = Field(examples=["There is no such thing"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["no run r-1h8qj2k0x9ab3cdefg; GET /v1/runs lists yours"])
    request_id: str = Field(description="Also in the header `X-Request-ID` and in the server's log.")
    faults: list[FaultView] | None = Field(None, description="One for each fault of a wrong spec or parameter.")


class HealthView(View):
    """Whether the API can answer."""

    status: str = Field(examples=["ok"], description="`ok` or `unavailable`.")
    store: str = Field(examples=["ok"], description="`ok` or `unreachable`.")
    version: str = Field(examples=["0.1.0"])


class RunView(View):
    """A run, without its spec."""

    id: str = Field(examples=["r-1h8qj2k0x9ab3cdefg"])
    name: str | None = Field(examples=["quickstart"])
    kind: str = Field(examples=["distill"])
    owner: str = Field(examples=["local"], description="Whose key submitted it.")
    state: State
    reason: str | None = Field(description="Why it is where it is: an error, or what it waits for.")
    parent: str | None = Field(description="The pipeline run that it is a step of.")
    step: str | None = Field(description="Its name in that pipeline.")
    epoch: int = Field(description="Number of its latest attempt; 0 before the first.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    cancel_requested: bool
    progress: dict[str, Any] = Field(
        examples=[{"share_done": 0.4, "loss": 1.31, "eta_seconds": 21.0}],
        description="Live figures of the current attempt.",
    )
    retry_at: datetime | None = Field(
        None, description="A QUEUED run whose attempt has failed isn't tried again before this."
    )
    errors: int = Field(description="Attempts lost to errors.")
    lost: int = Field(description="Attempts lost with their process, node or cluster.")

    @classmethod
    def of(cls, run: Run) -> Self:
        """From the store's record."""
        return cls(**{name: getattr(run, name) for name in RunView.model_fields})


class RunDetail(RunView):
    """A run with its spec and, for a pipeline, its steps."""

    submission_id: str | None = Field(description="The Idempotency-Key, or the id of the Ray job that submitted it.")
    output: str | None = Field(description="Folder of its results, on the machine that computed them.")
    spec: dict[str, Any] = Field(description="The resolved spec, every default written out.")
    children: list[RunView] = Field(description="Runs of a pipeline's steps, in the order of the spec.")

    @classmethod
    def with_children(cls, run: Run, children: list[Run]) -> Self:
        """From the store's records."""
        plain = {name: getattr(run, name) for name in RunDetail.model_fields if name != "children"}
        return cls(**plain, children=[RunView.of(child) for child in children])


class RunPage(View):
    """Some runs, newest first."""

    runs: list[RunView]
    next_cursor: str | None = Field(description="Give it as `cursor` to get the next page; null on the last page.")


class PointView(View):
    """One live figure."""

    step: int
    value: float | None


class SeriesView(View):
    """The live figures of one name."""

    name: str = Field(examples=["loss"])
    num_points: int = Field(description="How many there are; fewer may be given, see `max_points`.")
    points: list[PointView]


class SummaryView(View):
    """One final figure."""

    metric: str = Field(examples=["joint"])
    system: str = Field(examples=["student"], description="Row of an evaluation's table; empty elsewhere.")
    value: float | None = Field(examples=[0.71])
    low: float | None = Field(examples=[0.69], description="Lower end of the 95 % interval, where there is one.")
    high: float | None = Field(examples=[0.73], description="Upper end of it.")
    count: int | None = Field(examples=[550], description="Rows behind the figure.")

    @classmethod
    def of(cls, summary: Summary) -> Self:
        """From the store's record."""
        return cls(
            metric=summary.metric,
            system=summary.system,
            value=finite(summary.value),
            low=finite(summary.low),
            high=finite(summary.high),
            count=summary.count,
        )


class MetricsView(View):
    """What was measured while the run worked, and at its end."""

    run_id: str
    series: list[SeriesView] = Field(
        description="Live figures by name; an attempt taken up from a checkpoint continues them."
    )
    summaries: list[SummaryView] = Field(description="Final figures; empty before the run SUCCEEDED.")


class TableRow(View):
    """One system of an evaluation."""

    system: str = Field(examples=["student"])
    cells: dict[str, SummaryView] = Field(description="Column → figure; a column without one is left out.")


class TableView(View):
    """The table of an evaluation: systems × metrics."""

    run_id: str = Field(description="The evaluation; for a pipeline, that of its evaluate step.")
    columns: list[str] = Field(examples=[["style", "content_source", "joint"]])
    rows: list[TableRow] = Field(description="In the order of the spec.")


class FileView(View):
    """One file of an artifact."""

    path: str = Field(examples=["model.safetensors"], description="Relative to the artifact; empty for a single file.")
    num_bytes: int


class ArtifactView(View):
    """One thing that a run made."""

    name: str = Field(examples=["model"])
    is_folder: bool
    file_name: str = Field(examples=["model"], description="Of the file or folder where it was made.")
    num_files: int = Field(description="How many there are; 0 when they are not on the API's machine.")
    num_bytes: int
    files: list[FileView] = Field(description="The first 1,000 of them, by path.")


class ArtifactsView(View):
    """What a run made."""

    run_id: str
    artifacts: list[ArtifactView] = Field(description="By name; empty before the run SUCCEEDED.")


class EventView(View):
    """A change of state, or something said about a run."""

    id: int = Field(description="Grows; ask for what came `after` the last one seen.")
    at: datetime
    epoch: int
    state: State
    message: str | None


class EventsView(View):
    """What happened to a run, oldest first."""

    run_id: str
    events: list[EventView]


def finite(value: float | None) -> float | None:
    """The number, or None where JSON has no word for it."""
    return value if value is not None and math.isfinite(value) else None
