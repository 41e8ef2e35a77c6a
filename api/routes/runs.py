"""Runs: list, submit, show, cancel, and what happened to them."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import StringConstraints
from starlette.concurrency import run_in_threadpool

from api.admission import JSON_TYPE, YAML_TYPES, Roots, check_places, read_spec
from api.auth import Caller, OpenedStore, Submitter, Viewer, visible_run
from api.errors import Problem, Refused
from api.openapi import SUBMIT_BODY, problems
from api.schemas import RUN_ID, EventsView, EventView, RunDetail, RunPage, RunView
from api.search import MAX_LIMIT, Question, children_of, find_runs
from cluster.records import RunNotFound
from cluster.references import resolve_runs
from cluster.runs import State
from cluster.store import Store
from configs.load import dump_spec
from configs.schema.kinds import AnySpec

router = APIRouter(tags=["runs"])

Kind = Literal["prepare", "finetune", "distill", "export", "detoxify", "evaluate", "pipeline"]
Text = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f]*$")]


@router.get("/runs", summary="List runs", responses=problems(401, 403, 422, 429, 503))
def list_runs(
    store: OpenedStore,
    caller: Viewer,
    state: Annotated[State | None, Query(description="Only runs in this state.")] = None,
    kind: Annotated[Kind | None, Query(description="Only runs of this kind of spec.")] = None,
    name: Annotated[Text | None, Query(description="Part of the name, in any case.", examples=["quick"])] = None,
    owner: Annotated[Text | None, Query(description="Only this owner's runs; another's need an admin's key.")] = None,
    parent: Annotated[str | None, Query(pattern=RUN_ID, description="Only steps of this pipeline run.")] = None,
    top_level: Annotated[bool, Query(description="Leave out the steps of pipelines.")] = False,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Runs on a page.")] = 50,
    cursor: Annotated[str | None, Query(pattern=RUN_ID, description="`next_cursor` of the page before.")] = None,
) -> RunPage:
    """Newest first; your own, or everybody's with an admin's key.

    A page is the same whatever is submitted in between.
    """
    if owner is not None and owner != caller.owner and not caller.is_admin:
        raise Refused(Problem.FORBIDDEN, "only an admin's key may list the runs of another owner")
    question = Question(
        owner=owner if caller.is_admin else caller.owner,
        state=state,
        kind=kind,
        parent=parent,
        top_level=top_level,
        name=name,
    )
    page = find_runs(store, question, limit=limit, cursor=cursor)
    return RunPage(runs=[RunView.of(run) for run in page.runs], next_cursor=page.next_cursor)


@router.post(
    "/runs",
    summary="Submit a spec",
    status_code=201,
    responses={
        200: {"model": RunDetail, "description": "The run that was submitted with this Idempotency-Key before."},
        **problems(401, 403, 409, 413, 415, 422, 429, 503),
    },
    openapi_extra={"requestBody": SUBMIT_BODY},
)
async def submit_run(
    request: Request,
    response: Response,
    store: OpenedStore,
    caller: Submitter,
    idempotency_key: Annotated[
        str | None,
        Header(
            pattern=r"^[\x21-\x7e]{1,200}$",
            description="Sent again with the same spec, it gives the same run and submits nothing.",
            examples=["7f0c2a9e-nightly-2030-01-31"],
        ),
    ] = None,
) -> RunDetail:
    """Takes a spec of any kind as JSON or YAML and records a run of it, which the coordinator takes up within a second.

    The spec is checked at once: a wrong one is answered with 422 and one fault for each thing that is wrong. Paths in
    it must be absolute; without an admin's key they may only name results of your own runs and the shared inputs.
    """
    content_type = request.headers.get("content-type", JSON_TYPE).partition(";")[0].strip().lower()
    if content_type != JSON_TYPE and content_type not in YAML_TYPES:
        raise Refused(Problem.UNSUPPORTED_TYPE, f"send Content-Type: {JSON_TYPE} or application/yaml")
    body = await request.body()
    roots: Roots = request.app.state.roots
    detail, is_new = await run_in_threadpool(_submit, store, caller, roots, body, content_type, idempotency_key)
    response.status_code = 201 if is_new else 200
    response.headers["Location"] = f"/v1/runs/{detail.id}"
    return detail


@router.get("/runs/{run_id}", summary="Show a run", responses=problems(401, 404, 422, 429, 503))
def show_run(store: OpenedStore, caller: Viewer, run_id: str) -> RunDetail:
    """State, reason, progress and spec of a run, and the steps of a pipeline."""
    run = visible_run(store, caller, run_id)
    return RunDetail.with_children(run, children_of(store, run))


@router.post("/runs/{run_id}/cancel", summary="Cancel a run", responses=problems(401, 403, 404, 409, 422, 429, 503))
def cancel_run(store: OpenedStore, caller: Submitter, run_id: str) -> RunDetail:
    """Asks a run to end: at once where nothing runs yet, else at its next task or step; a pipeline with its steps.

    Cancelling twice is the same as once. 409 when the run has SUCCEEDED or FAILED already.
    """
    visible_run(store, caller, run_id)
    run = store.request_cancel(run_id)
    if run.state in (State.SUCCEEDED, State.FAILED):
        raise Refused(Problem.CONFLICT, f"{run.id} has {run.state} already; there is nothing to cancel")
    return RunDetail.with_children(run, children_of(store, run))


@router.get("/runs/{run_id}/events", summary="What happened to a run", responses=problems(401, 404, 422, 429, 503))
def list_events(
    store: OpenedStore,
    caller: Viewer,
    run_id: str,
    after: Annotated[int, Query(ge=0, le=2**53, description="Only events with a higher id.")] = 0,
) -> EventsView:
    """Every change of state, oldest first."""
    run = visible_run(store, caller, run_id)
    events = [
        EventView(id=item.id, at=item.at, epoch=item.epoch, state=item.state, message=item.message)
        for item in store.events(run.id, after)
    ]
    return EventsView(run_id=run.id, events=events)


def _submit(
    store: Store, caller: Caller, roots: Roots, body: bytes, content_type: str, key: str | None
) -> tuple[RunDetail, bool]:
    """The run, and whether it's new."""
    spec = resolve_runs(read_spec(body, content_type=content_type), store, may_read=caller.may_see)
    check_places(spec, roots, is_admin=caller.is_admin, may_read=lambda run_id: _may_read(store, caller, run_id))
    before = store.find_submission(caller.owner, key) if key is not None else None
    run = store.submit(spec, owner=caller.owner, submission_id=key)
    _check_same(run.spec, spec)
    return RunDetail.with_children(run, children_of(store, run)), before is None


def _check_same(recorded: dict[str, object], spec: AnySpec) -> None:
    if recorded != dump_spec(spec):
        detail = "this Idempotency-Key was used for another spec; use a new key for a new spec"
        raise Refused(Problem.CONFLICT, detail)


def _may_read(store: Store, caller: Caller, run_id: str) -> bool:
    try:
        visible_run(store, caller, run_id)
    except RunNotFound:
        return False
    return True
