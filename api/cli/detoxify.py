"""``distox detoxify``: one file of comments, rewritten by a model of this store, without writing a spec first."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.cli.connect import WRONG, connected, fail
from api.cli.results import download_artifact
from api.cli.runs import Json, spec_faults, submit_and_follow

if TYPE_CHECKING:
    from api.client import Client
    from api.schemas import RunView
    from configs.schema.kinds import AnySpec


OUTCOMES = ("rewritten", "unchanged", "passed", "flagged", "quarantined")
"""The values of ``distox_status``."""


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(detoxify)


def detoxify(
    file: Annotated[Path, typer.Argument(help="CSV, TSV or JSONL, with a header or keys.", show_default=False)],
    text_column: Annotated[str, typer.Option(help="The column that holds the comment.")] = "text",
    model: Annotated[
        str | None,
        typer.Option(
            help="A run that made a model, or a model's folder; the newest exported one when left out.",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes that decode, one CPU each.", min=1)] = 1,
    to: Annotated[Path, typer.Option("--to", help="Folder for the rewritten file.")] = Path(),
    follow: Annotated[
        bool,
        typer.Option("--follow/--detach", help="Watch the run and fetch its file, or return when it is recorded."),
    ] = True,
    print_spec: Annotated[bool, typer.Option("--print-spec", help="Print the spec and submit nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Rewrite a file of comments; every row comes out exactly once, with all its columns and two new ones.

    `dump.csv` becomes `dump.detoxified.csv`: `detoxified` is the rewritten comment, `distox_status` says what became of
    it. A spec can say more: blocked phrases, beams, the size of a task. `--print-spec` prints one to begin with.

    ```
    distox detoxify dump.csv --text-column comment
    distox detoxify dump.csv --text-column comment --model r-1k10dp4r1sxdtmjsm3 --workers 2
    distox detoxify dump.csv --text-column comment --print-spec > dump.yaml
    ```
    """
    if not file.is_file():
        fail(f"{file}: no such file; give a CSV, TSV or JSONL file", code=WRONG)
    from configs.load import validate_spec

    target = to / f"{file.stem}.detoxified{file.suffix.lower()}"
    if follow and not print_spec and target.exists():
        fail(f"{target} is there already; move it, or give another folder with --to", code=WRONG)
    with connected() as client, spec_faults():
        spec = validate_spec(
            {
                "kind": "detoxify",
                "name": file.stem[:100],
                "model": {"name": model_name(client, model)},
                "input": {"path": str(file.absolute()), "text_column": text_column},
                "resources": {"num_workers": workers},
            },
            source="distox detoxify",
        )
        if print_spec:
            print_spec_of(spec)
            return
        run = submit_and_follow(client, spec, follow=follow, as_json=as_json)
        if not follow:
            typer.echo(f"at its end: distox artifacts download {run.id} rows", err=as_json)
            return
        download_artifact(client, run.id, "rows", to, quiet=as_json)
        typer.echo(_outcomes(client, run.id), err=as_json)


def _outcomes(client: Client, run_id: str) -> str:
    """How many rows came to what."""
    figures = {item.metric: item.value or 0.0 for item in client.metrics(run_id).summaries}
    outcomes = {name: figures.get(f"rows_{name}", 0.0) for name in OUTCOMES}
    words = ", ".join(f"{count:,.0f} {name}" for name, count in outcomes.items() if count)
    look = "; look at the flagged ones before you use them" if outcomes["flagged"] else ""
    return f"{figures.get('rows', 0.0):,.0f} rows: {words or 'none'}{look}"


def model_name(client: Client, given: str | None) -> str:
    """What the spec names: a folder that exists, or a reference to a run's model."""
    if given is None:
        run = _newest_export(client)
        typer.echo(f"model: {run.id} ({run.name or run.kind}); --model names another", err=True)
        return f"${{runs.{run.id}.model}}"
    if Path(given).expanduser().is_dir():
        return str(Path(given).expanduser().absolute())
    if re.fullmatch(r"r-[0-9a-z]{4,40}", given) is None:
        remedy = "`distox list --steps --kind export` shows runs"
        fail(f"--model {given}: neither a folder nor a run; {remedy}", code=WRONG)
    return f"${{runs.{given}.model}}"


def _newest_export(client: Client) -> RunView:
    run = next(client.runs(limit=1, kind="export", state="SUCCEEDED"), None)
    if run is None:
        fail("no run has exported a model yet; run `distox quickstart`, or give --model", code=WRONG)
    return run


def print_spec_of(spec: AnySpec) -> None:
    """As YAML, without what the defaults say."""
    import yaml

    data = {"kind": spec.kind, **spec.model_dump(mode="json", exclude_defaults=True)}
    typer.echo(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), nl=False)
