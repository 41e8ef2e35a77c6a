"""``distox detoxify``: one file of comments, rewritten by a model of this store, without writing a spec first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.cli.connect import WRONG, connected, fail
from api.cli.runs import Json, spec_faults
from api.cli.shortcut import Follow, PrintSpec, Shortcut, final_figures, model_name

if TYPE_CHECKING:
    from api.client import Client


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
    follow: Follow = True,
    print_spec: PrintSpec = False,
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
    target = to / f"{file.stem}.detoxified{file.suffix.lower()}"
    shortcut = Shortcut("rows", target, follow, print_spec, as_json)
    shortcut.check()
    with connected() as client, spec_faults():
        data = {
            "kind": "detoxify",
            "name": file.stem[:100],
            "model": {"name": model_name(client, model)},
            "input": {"path": str(file.absolute()), "text_column": text_column},
            "resources": {"num_workers": workers},
        }
        shortcut.carry_out(client, data, source="distox detoxify", tell=_outcomes)


def _outcomes(client: Client, run_id: str) -> str:
    """How many rows came to what."""
    figures = final_figures(client, run_id)
    outcomes = {name: figures.get(f"rows_{name}", 0.0) for name in OUTCOMES}
    words = ", ".join(f"{count:,.0f} {name}" for name, count in outcomes.items() if count)
    look = "; look at the flagged ones before you use them" if outcomes["flagged"] else ""
    return f"{figures.get('rows', 0.0):,.0f} rows: {words or 'none'}{look}"
