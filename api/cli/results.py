"""``distox metrics`` and ``distox artifacts``: what runs leave behind, through the API."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from api.cli.connect import WRONG, connected, fail
from api.cli.runs import Json, RunId

if TYPE_CHECKING:
    from api.client import Client
    from api.schemas import ArtifactView, RunView


class _Artifacts(TyperGroup):
    """Says what may be done with a run whose id stands where a command is expected."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command, its name, and the rest."""
        if args[0].startswith("r-"):
            ways = f"`distox artifacts list {args[0]}` or `distox artifacts download {args[0]} ARTIFACT`"
            ctx.fail(f"Say what to do with {args[0]}: {ways}")
        return super().resolve_command(ctx, args)


artifacts = typer.Typer(
    cls=_Artifacts, help="List and download the files of a run.", no_args_is_help=True, rich_markup_mode="markdown"
)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(metrics)
    app.add_typer(artifacts, name="artifacts")


def metrics(
    run_id: RunId,
    name: Annotated[
        str | None, typer.Option(help="Only this live series, with its points.", show_default=False)
    ] = None,
    wide: Annotated[
        bool, typer.Option("--wide", help="An evaluation as one table with every figure, as wide as it gets.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show the figures of a run: the live ones while it works, the final ones with 95 % intervals at its end.

    An evaluation is shown as tables of quality, wording, speed, size and differences, which fit 100 columns; for a
    pipeline, the figures of every step.

    ```
    distox metrics r-1k10dp4r1sxdtmjsm3
    distox metrics r-1k10dp4r1sxdtmjsm3 --wide | less -S
    distox metrics r-1k10dp4r1sxdtmjsm3 --name loss
    ```
    """
    with connected() as client:
        found = [(run, client.metrics(run.id, name=name)) for run in _with_steps(client, run_id)]
    if as_json:
        views = [view.model_dump(mode="json") for _, view in found]
        typer.echo(json.dumps(views if len(views) > 1 else views[0], indent=2))
        return
    if name is not None and not any(view.series for _, view in found):
        _refuse_name(run_id, name)
    from api.cli.tables import print_metrics

    shown = [print_metrics(run, view, with_points=name is not None, wide=wide) for run, view in found]
    if not any(shown):
        typer.echo("no figures yet")


@artifacts.command("list")
def list_artifacts(run_id: RunId, as_json: Json = False) -> None:
    """List what a run made; for a pipeline, what every step made.

    ```
    distox artifacts list r-1k10dp4r1sxdtmjsm3
    ```
    """
    with connected() as client:
        found = [(run, client.artifacts(run.id)) for run in _with_steps(client, run_id)]
    if as_json:
        views = [view.model_dump(mode="json") for _, view in found]
        typer.echo(json.dumps(views if len(views) > 1 else views[0], indent=2))
    elif not any(view.artifacts for _, view in found):
        typer.echo("no artifacts; they exist once the run has SUCCEEDED")
    else:
        from api.cli.tables import artifacts_table, render

        render(artifacts_table([(run, item) for run, view in found for item in view.artifacts]))


@artifacts.command()
def download(
    run_id: RunId,
    name: Annotated[str, typer.Argument(help="The artifact, as `list` shows it.", metavar="ARTIFACT")],
    to: Annotated[Path, typer.Option("--to", help="Folder to write into; made when it isn't there.")] = Path(),
) -> None:
    """Download an artifact: one file, or a folder with all its files.

    ```
    distox artifacts download r-1k10dp4r1sxdtmjsm3 rows --to results
    ```
    """
    with connected() as client:
        download_artifact(client, run_id, name, to)


def download_artifact(client: Client, run_id: str, name: str, to: Path, *, quiet: bool = False) -> None:
    """Write an artifact below the folder ``to`` and name each file, on stderr if ``quiet``.

    Exits with 2 when the run has none of that name.
    """
    there = client.artifacts(run_id).artifacts
    chosen = next((item for item in there if item.name == name), None)
    if chosen is None:
        names = ", ".join(item.name for item in there) or "none"
        fail(f"{run_id} has no artifact {name}; it has: {names}", code=WRONG)
    _download(client, run_id, chosen, to, quiet=quiet)


def _refuse_name(run_id: str, name: str) -> NoReturn:
    """Say which live series there are."""
    with connected() as client:
        views = [client.metrics(run.id) for run in _with_steps(client, run_id)]
    known = sorted({series.name for view in views for series in view.series})
    fail(f"{run_id} has no live figure {name}; it has: {', '.join(known) or 'none yet'}", code=WRONG)


def _download(client: Client, run_id: str, artifact: ArtifactView, to: Path, *, quiet: bool) -> None:
    if artifact.num_files > len(artifact.files):
        listed = f"{artifact.num_files:,} files, of which the API lists {len(artifact.files):,}"
        fail(f"{artifact.name} has {listed}; copy it from the run's output folder instead", code=WRONG)
    for file in artifact.files:
        inner = PurePosixPath(file.path)
        # The server is trusted with the content of files, not with where they go.
        if inner.is_absolute() or ".." in inner.parts:
            fail(f"the API names a file outside of the artifact: {file.path}", code=WRONG)
        destination = to / artifact.name / inner if artifact.is_folder else to / PurePosixPath(artifact.file_name).name
        destination.parent.mkdir(parents=True, exist_ok=True)
        num_bytes = client.download(run_id, artifact.name, file.path, destination)
        typer.echo(f"{destination}  {num_bytes:,} bytes", err=quiet)


def _with_steps(client: Client, run_id: str) -> list[RunView]:
    """The steps of a pipeline, or the run itself."""
    run = client.run(run_id)
    return [*run.children] or [run]
