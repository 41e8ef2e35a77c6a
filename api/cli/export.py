"""``distox export``: a trained model of this store, made ready to be used elsewhere, without writing a spec first."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.cli.connect import connected
from api.cli.runs import Json, spec_faults
from api.cli.shortcut import Follow, PrintSpec, Shortcut, final_figures, model_name

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
    follow: Follow = True,
    print_spec: PrintSpec = False,
    as_json: Json = False,
) -> None:
    """Export a trained model and fetch it: for the fast engine, for Transformers, or as a bundle for devices.

    A spec can say more: a gate that refuses an export which writes worse, and results for the model card.

    ```
    distox export r-1k10dp4r1sxdtmjsm3 --bundle --to release
    distox export ./models/student --format transformers --license apache-2.0
    ```
    """
    artifact, name = ("bundle_zip", "bundle.zip") if bundle else ("model", "model")
    shortcut = Shortcut(artifact, to / name, follow, print_spec, as_json)
    shortcut.check()
    with connected() as client, spec_faults():
        data = {
            "kind": "export",
            "model": {"name": model_name(client, model)},
            "format": model_format.value,
            "bundle": bundle,
            "card": {"license": license_id},
            **({} if quantization is None else {"quantization": quantization.value}),
        }
        shortcut.carry_out(client, data, source="distox export", tell=_figures)


def _figures(client: Client, run_id: str) -> str:
    """Size, and of a bundle the memory that it takes."""
    found = final_figures(client, run_id)
    words = [f"{found.get('parameters', 0):,.0f} parameters", f"{found.get('bytes_on_disk', 0) / 1e6:,.1f} MB"]
    if "bundle_zip_bytes" in found:
        words.append(
            f"bundle {found['bundle_zip_bytes'] / 1e6:,.1f} MB, {found['bundle_peak_bytes'] / 1e6:,.0f} MB of memory"
        )
    return ", ".join(words)
