"""``distox validate`` and ``distox schema``: what a spec may say, and whether one says it right.

They need no running stack and import neither torch nor ray.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from configs.load import Fault


@dataclass(frozen=True)
class _Check:
    """What is to be said of one file."""

    spec: str
    kind: str | None = None
    name: str | None = None
    steps: Sequence[str] = ()
    """Of a pipeline, each after those it waits for."""
    faults: Sequence[Fault] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return asdict(self)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(validate)
    app.command()(schema)


def validate(
    specs: Annotated[list[Path], typer.Argument(help="YAML or JSON files.", metavar="SPEC", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of lines.")] = False,
) -> None:
    """Check specs without running them: OK with kind and name, or one line for each fault (then the exit code is 2).

    ```
    distox validate configs/quickstart.yaml
    distox validate configs/paradehate/*.yaml
    ```
    """
    checks = [_check(path) for path in specs]
    if as_json:
        typer.echo(json.dumps([check.as_dict() for check in checks], indent=2))
    else:
        for check in checks:
            _print(check)
    if any(check.faults for check in checks):
        raise typer.Exit(2)


def schema(
    kind: Annotated[
        str | None, typer.Option(help="Only this kind of spec, as `distill`; all when left out.", show_default=False)
    ] = None,
) -> None:
    """Print the JSON Schema of specs, for editors and other programs.

    ```
    distox schema > spec.schema.json
    distox schema --kind distill
    ```
    """
    from configs.load import json_schema
    from configs.schema.kinds import KINDS, AnySpec

    if kind is None:
        typer.echo(json.dumps(json_schema(), indent=2))
        return
    if kind not in KINDS:
        raise typer.BadParameter(f"{kind!r} is no kind of spec; the kinds are {', '.join(KINDS)}", param_hint="--kind")
    chosen = next(model for model in AnySpec.__args__ if model.model_fields["kind"].default == kind)
    typer.echo(json.dumps(chosen.model_json_schema(), indent=2))


def _check(path: Path) -> _Check:
    from configs.load import SpecError, load_spec
    from configs.schema.kinds import Pipeline

    try:
        spec = load_spec(path)
    except SpecError as error:
        return _Check(str(path), faults=error.faults)
    steps = spec.order() if isinstance(spec, Pipeline) else []
    return _Check(str(path), kind=spec.kind, name=spec.name or path.stem, steps=steps)


def _print(check: _Check) -> None:
    if not check.faults:
        steps = f" ({' -> '.join(check.steps)})" if check.steps else ""
        typer.echo(f"{check.spec}: OK {check.kind} {check.name}{steps}")
    tell_faults(check.spec, check.faults)


def tell_faults(source: str, faults: Sequence[Fault]) -> None:
    """One line on stderr for each fault, which begins with the file (or what else it was found in)."""
    for fault in faults:
        line = str(fault)
        typer.echo(line if line.startswith(source) else f"{source}: {line}", err=True)
