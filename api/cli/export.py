"""``distox export``: a trained model of this store, made ready to be used elsewhere, without writing a spec first."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.cli.connect import WRONG, connected, fail
from api.cli.detoxify import model_name, print_spec_of
from api.cli.results import download_artifact
from api.cli.runs import Json, spec_faults, submit_and_follow

if TYPE_CHECKING:
    from api.client import Client


class Quantization(StrEnum):
    """As in the spec."""

    INT8 = "int8"
    INT8_BFLOAT16 = "int8_bfloat16"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    FLOAT32 = "float32"


class Format(StrEnum):
    """As in the spec."""

    CTRANSLATE2 = "ctranslate2"
    TRANSFORMERS = "transformers"


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(export)


def export(
    model: Annotated[
        str,
        typer.Argument(help="A run that trained a model, or a model's folder.", metavar="MODEL", show_default=False),
    ],
    model_format: Annotated[Format, typer.Option("--format", help="What is written.")] = Format.CTRANSLATE2,
    quantization: Annotated[
        Quantization | None,
        typer.Option(
            help="How weights are stored: int8, or float32 for Transformers, if left out.", show_default=False
        ),
    ] = None,
    bundle: Annotated[
        bool,
        typer.Option("--bundle", help="Make a ZIP with one script, for devices without torch, and fetch that."),
    ] = False,
    license_id: Annotated[
        str, typer.Option("--license", help="For the model card, as apache-2.0.", metavar="ID")
    ] = "unknown",
    to: Annotated[Path, typer.Option("--to", help="Folder for what is fetched.")] = Path(),
    follow: Annotated[
        bool,
        typer.Option("--follow/--detach", help="Watch the run and fetch its model, or return when it is recorded."),
    ] = True,
    print_spec: Annotated[bool, typer.Option("--print-spec", help="Print the spec and submit nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Export a trained model and fetch it: for the fast engine, for Transformers, or as a bundle for devices.

    A spec can say more: a gate that refuses an export which writes worse, and results for the model card.

    ```
    distox export r-1k10dp4r1sxdtmjsm3 --bundle --to release
    distox export ./models/student --format transformers --license apache-2.0
    ```
    """
    from configs.load import validate_spec

    artifact = "bundle_zip" if bundle else "model"
    target = to / ("bundle.zip" if bundle else "model")
    if follow and not print_spec and target.exists():
        fail(f"{target} is there already; move it, or give another folder with --to", code=WRONG)
    with connected() as client, spec_faults():
        data = {
            "kind": "export",
            "model": {"name": model_name(client, model)},
            "format": model_format.value,
            "bundle": bundle,
            "card": {"license": license_id},
            **({} if quantization is None else {"quantization": quantization.value}),
        }
        spec = validate_spec(data, source="distox export")
        if print_spec:
            print_spec_of(spec)
            return
        run = submit_and_follow(client, spec, follow=follow, as_json=as_json)
        if not follow:
            typer.echo(f"at its end: distox artifacts download {run.id} {artifact}", err=as_json)
            return
        download_artifact(client, run.id, artifact, to, quiet=as_json)
        typer.echo(_figures(client, run.id), err=as_json)


def _figures(client: Client, run_id: str) -> str:
    """Size, and of a bundle the memory that it takes."""
    found = {item.metric: item.value or 0.0 for item in client.metrics(run_id).summaries}
    words = [f"{found.get('parameters', 0):,.0f} parameters", f"{found.get('bytes_on_disk', 0) / 1e6:,.1f} MB"]
    if "bundle_zip_bytes" in found:
        words.append(
            f"bundle {found['bundle_zip_bytes'] / 1e6:,.1f} MB, {found['bundle_peak_bytes'] / 1e6:,.0f} MB of memory"
        )
    return ", ".join(words)
