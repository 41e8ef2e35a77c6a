"""``distox submit``, ``list``, ``show`` and ``cancel``: runs, through the API."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.cli.checks import tell_faults
from api.cli.connect import FAILED, INTERRUPTED, WRONG, connected, tell_refusal

if TYPE_CHECKING:
    from api.client import Client
    from api.schemas import RunDetail
    from configs.schema.kinds import AnySpec

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
RunId = Annotated[str, typer.Argument(help="As `distox list` shows it.", metavar="RUN", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(submit)
    app.command("list")(list_runs)
    app.command()(show)
    app.command()(cancel)


def submit(
    spec: Annotated[Path, typer.Argument(help="A YAML or JSON file.", metavar="SPEC", show_default=False)],
    follow: Annotated[
        bool, typer.Option("--follow/--detach", help="Watch the run to its end, or return when it is recorded.")
    ] = True,
    name: Annotated[str | None, typer.Option(help="The run's name, instead of the spec's.", show_default=False)] = None,
    key: Annotated[
        str | None,
        typer.Option(
            "--idempotency-key", help="Submitted again with the same key, it is the same run.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Submit a spec and watch the run; relative paths in it mean this folder.

    Exits with 0 when the run SUCCEEDED, 1 when it FAILED, 130 when it was cancelled. Ctrl-C stops the watching, not the
    run: `distox cancel RUN` does.

    ```
    distox submit configs/quickstart.yaml
    distox submit configs/quickstart.yaml --detach --name nightly
    ```
    """
    resolved = _load(spec, name)
    with connected() as client:
        run = submit_and_follow(client, resolved, key=key, follow=follow, as_json=as_json)
        if follow and not as_json:
            typer.echo(f"results: distox metrics {run.id}; distox artifacts list {run.id}")


def list_runs(
    state: Annotated[str | None, typer.Option(help="Only runs in this state.", show_default=False)] = None,
    kind: Annotated[str | None, typer.Option(help="Only runs of this kind of spec.", show_default=False)] = None,
    name: Annotated[str | None, typer.Option(help="Only runs with this in their name.", show_default=False)] = None,
    owner: Annotated[str | None, typer.Option(help="Only this owner's runs (admins).", show_default=False)] = None,
    steps: Annotated[bool, typer.Option("--steps", help="Show the steps of pipelines too.")] = False,
    limit: Annotated[int, typer.Option(help="How many, newest first.", min=1)] = 20,
    as_json: Json = False,
) -> None:
    """List runs, newest first.

    ```
    distox list
    distox list --state RUNNING --steps
    distox list --name quick --json
    ```
    """
    filters = {"state": state.upper() if state else None, "kind": kind, "name": name, "owner": owner}
    with connected() as client:
        runs = list(client.runs(limit=limit, top_level=not steps, **filters))
    if as_json:
        typer.echo(json.dumps([run.model_dump(mode="json") for run in runs], indent=2))
    elif not runs and any(filters.values()):
        typer.echo("no run is like that; `distox list` without filters shows all" + ("" if steps else ", --steps more"))
    elif not runs:
        typer.echo("no runs; submit one with `distox submit SPEC`")
    else:
        from api.cli.tables import render, runs_table

        render(runs_table(runs))


def show(run_id: RunId, as_json: Json = False) -> None:
    """Show how a run goes, with the steps of a pipeline.

    ```
    distox show r-1k10dp4r1sxdtmjsm3
    distox show r-1k10dp4r1sxdtmjsm3 --json | jq .spec
    ```
    """
    with connected() as client:
        run = client.run(run_id)
    if as_json:
        typer.echo(run.model_dump_json(indent=2))
        return
    from api.cli.tables import print_run

    print_run(run)


def cancel(
    run_ids: Annotated[list[str], typer.Argument(help="One or more runs.", metavar="RUN")], as_json: Json = False
) -> None:
    """Ask runs to end: at once where nothing runs yet, else at the next task or step.

    ```
    distox cancel r-1k10dp4r1sxdtmjsm3
    ```
    """
    from api.client import ApiError

    was_refused = False
    with connected() as client:
        for run_id in run_ids:
            try:
                run = client.cancel(run_id)
            except ApiError as error:
                if error.status >= 500:
                    raise
                # The others are cancelled all the same.
                tell_refusal(error)
                was_refused = True
            else:
                typer.echo(run.model_dump_json() if as_json else f"{run.id}: {_cancelled(run.state)}")
    if was_refused:
        raise typer.Exit(WRONG)


def submit_and_follow(
    client: Client, spec: AnySpec, *, key: str | None = None, follow: bool, as_json: bool
) -> RunDetail:
    """Submit, say so, and watch to the end unless told otherwise.

    Exits with 1 when the run FAILED, 130 when it was cancelled or the watching was interrupted.
    """
    from configs.load import dump_spec

    run = client.submit(dump_spec(spec), idempotency_key=key or f"cli-{uuid.uuid4().hex}")
    if not (as_json and not follow):
        typer.echo(f"submitted {run.kind} {run.name or ''} as {run.id}".replace("  ", " "), err=as_json)
    if follow:
        return _watch(client, run.id, as_json=as_json)
    if as_json:
        typer.echo(run.model_dump_json(indent=2))
    return run


@contextmanager
def spec_faults() -> Iterator[None]:
    """One line on stderr for each fault of a spec that is made inside, then exit code 2."""
    from configs.load import SpecError

    try:
        yield
    except SpecError as error:
        tell_faults(error.source, error.faults)
        raise typer.Exit(WRONG) from error


def _cancelled(state: str) -> str:
    return "CANCELLED" if state == "CANCELLED" else f"{state}, will be cancelled at its next task or step"


def _load(file: Path, name: str | None) -> AnySpec:
    """The spec with absolute paths; exits with 2 and one line for each fault when it's wrong."""
    from configs.load import load_spec, validate_spec
    from configs.paths import resolve_paths

    with spec_faults():
        spec = load_spec(file)
        if name is not None:
            spec = validate_spec({**spec.model_dump(mode="json"), "name": name}, source="--name")
        return resolve_paths(spec, Path.cwd())


def _watch(client: Client, run_id: str, *, as_json: bool) -> RunDetail:
    """Follow to the end; exits when that isn't SUCCEEDED."""
    from api.cli.follow import follow

    try:
        run = follow(client, run_id, say=lambda line: typer.echo(line, err=as_json))
    except KeyboardInterrupt:
        typer.echo(f"the run goes on; `distox show {run_id}`, `distox cancel {run_id}`", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        typer.echo(run.model_dump_json(indent=2))
    if run.state != "SUCCEEDED":
        raise typer.Exit(INTERRUPTED if run.state == "CANCELLED" else FAILED)
    return run
