"""What runs leave behind: figures, the table of an evaluation, and files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Query
from fastapi.responses import FileResponse

from api.auth import OpenedStore, Viewer, visible_run
from api.errors import Problem, Refused
from api.files import describe, find_file
from api.openapi import DOWNLOAD, problems
from api.schemas import (
    ArtifactsView,
    MetricsView,
    PointView,
    SeriesView,
    SummaryView,
    TableRow,
    TableView,
    finite,
)
from api.search import children_of
from cluster.results import Artifact, Point
from cluster.runs import Run, State
from cluster.store import Store

router = APIRouter(tags=["results"])


@router.get("/runs/{run_id}/metrics", summary="Figures of a run", responses=problems(401, 404, 422, 429, 503))
def show_metrics(
    store: OpenedStore,
    caller: Viewer,
    run_id: str,
    name: Annotated[
        str | None, Query(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f]*$", description="Only this series.")
    ] = None,
    max_points: Annotated[
        int, Query(ge=2, le=10_000, description="Points of a series; more are thinned evenly, the ends are kept.")
    ] = 1000,
) -> MetricsView:
    """Live figures by name and step while the run works, and the final figures with their 95 % intervals at its end."""
    run = visible_run(store, caller, run_id)
    return MetricsView(
        run_id=run.id,
        series=list(_series(store.points(run.id, name), max_points)),
        summaries=[SummaryView.of(item) for item in store.summaries(run.id)],
    )


@router.get("/runs/{run_id}/table", summary="Table of an evaluation", responses=problems(401, 404, 409, 422, 429, 503))
def show_table(store: OpenedStore, caller: Viewer, run_id: str) -> TableView:
    """Systems × metrics with intervals, of an `evaluate` run or of the one evaluate step of a pipeline."""
    run = _evaluation(store, visible_run(store, caller, run_id))
    if run.state is not State.SUCCEEDED:
        raise Refused(Problem.CONFLICT, f"{run.id} is {run.state}; its table exists once it has SUCCEEDED")
    figures = [SummaryView.of(item) for item in store.summaries(run.id) if item.system]
    rows: dict[str, dict[str, SummaryView]] = {}
    for figure in figures:
        rows.setdefault(figure.system, {})[figure.metric] = figure
    return TableView(
        run_id=run.id,
        columns=list(dict.fromkeys(figure.metric for figure in figures)),
        rows=[TableRow(system=system, cells=cells) for system, cells in rows.items()],
    )


@router.get("/runs/{run_id}/artifacts", summary="Files of a run", responses=problems(401, 404, 422, 429, 503))
def list_artifacts(store: OpenedStore, caller: Viewer, run_id: str) -> ArtifactsView:
    """Everything that a run made, with the files of each artifact and their sizes."""
    run = visible_run(store, caller, run_id)
    return ArtifactsView(run_id=run.id, artifacts=[describe(item) for item in store.artifacts(run.id)])


@router.get(
    "/runs/{run_id}/artifacts/{name}",
    summary="Download an artifact that is one file",
    response_class=FileResponse,
    responses={200: DOWNLOAD, **problems(401, 404, 409, 422, 429, 503)},
)
def download_artifact(store: OpenedStore, caller: Viewer, run_id: str, name: str) -> FileResponse:
    """The file; ranges are understood. 409 for a folder, whose files have paths of their own."""
    artifact = _artifact(store, visible_run(store, caller, run_id), name)
    view = describe(artifact)
    if view.is_folder:
        paths = ", ".join(file.path for file in view.files[:5])
        detail = f"{artifact.name} is a folder; add the path of a file, as {paths}"
        raise Refused(Problem.CONFLICT, detail)
    return _download(artifact, "")


@router.get(
    "/runs/{run_id}/artifacts/{name}/{path:path}",
    summary="Download a file of an artifact",
    response_class=FileResponse,
    responses={200: DOWNLOAD, **problems(401, 404, 422, 429, 503)},
)
def download_file(store: OpenedStore, caller: Viewer, run_id: str, name: str, path: str) -> FileResponse:
    """One file of an artifact that is a folder; ranges are understood."""
    return _download(_artifact(store, visible_run(store, caller, run_id), name), path)


def _series(points: Iterable[Point], max_points: int) -> Iterable[SeriesView]:
    """Points come by name and step."""
    for name, group in groupby(points, key=lambda point: point.name):
        values = [PointView(step=point.step, value=finite(point.value)) for point in group]
        yield SeriesView(name=name, num_points=len(values), points=_thinned(values, max_points))


def _thinned(points: Sequence[PointView], count: int) -> list[PointView]:
    if len(points) <= count:
        return list(points)
    return [points[round(index * (len(points) - 1) / (count - 1))] for index in range(count)]


def _evaluation(store: Store, run: Run) -> Run:
    """The run itself, or the evaluate step of a pipeline."""
    found = [item for item in (run, *children_of(store, run)) if item.kind == "evaluate"]
    if not found:
        raise Refused(Problem.NOT_FOUND, f"{run.id} evaluates nothing; its figures are under /v1/runs/{run.id}/metrics")
    if len(found) > 1:
        detail = f"{run.id} has several evaluations; ask for one: {', '.join(item.id for item in found)}"
        raise Refused(Problem.CONFLICT, detail)
    return found[0]


def _artifact(store: Store, run: Run, name: str) -> Artifact:
    artifacts = store.artifacts(run.id)
    for artifact in artifacts:
        if artifact.name == name:
            return artifact
    there = ", ".join(item.name for item in artifacts) or f"none, it is {run.state}"
    raise Refused(Problem.NOT_FOUND, f"{run.id} has no such artifact; it has: {there}")


def _download(artifact: Artifact, path: str) -> FileResponse:
    file = find_file(artifact, path)
    if file is None:
        raise Refused(Problem.NOT_FOUND, f"no such file of {artifact.name} on the API's machine")
    # Never shown in a browser: what a model wrote may look like a page.
    headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(file.name)}"}
    return FileResponse(file, media_type="application/octet-stream", headers=headers)
