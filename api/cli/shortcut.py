"""What the commands share that write a spec themselves: they name a model, submit, follow, and fetch what was made."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.connect import WRONG, fail
from api.cli.results import download_artifact
from api.cli.runs import submit_and_follow

if TYPE_CHECKING:
    from api.client import Client
    from api.schemas import RunView
    from configs.schema.kinds import AnySpec

Follow = Annotated[
    bool,
    typer.Option("--follow/--detach", help="Watch the run and fetch what it makes, or return when it is recorded."),
]
PrintSpec = Annotated[bool, typer.Option("--print-spec", help="Print the spec and submit nothing.")]


@dataclass(frozen=True)
class Shortcut:
    """How the run of such a command goes, and what becomes of its artifact."""

    artifact: str
    target: Path
    """Where it will be; its folder is the one that it is fetched into."""
    follow: bool
    print_spec: bool
    as_json: bool

    def check(self) -> None:
        """Exit with 2 where something stands in the artifact's place already."""
        if self.follow and not self.print_spec and self.target.exists():
            fail(f"{self.target} is there already; move it, or give another folder with --to", code=WRONG)

    def carry_out(
        self, client: Client, data: Mapping[str, Any], *, source: str, tell: Callable[[Client, str], str]
    ) -> None:
        """Check the spec, submit it, and at its end fetch the artifact and print what ``tell`` says of the run.

        Raises:
            SpecError: the spec is wrong; ``source`` is named as where it comes from.
        """
        from configs.load import validate_spec

        spec = validate_spec(dict(data), source=source)
        if self.print_spec:
            _print(spec)
            return
        run = submit_and_follow(client, spec, follow=self.follow, as_json=self.as_json)
        if not self.follow:
            typer.echo(f"at its end: distox artifacts download {run.id} {self.artifact}", err=self.as_json)
            return
        download_artifact(client, run.id, self.artifact, self.target.parent, quiet=self.as_json)
        typer.echo(tell(client, run.id), err=self.as_json)


def final_figures(client: Client, run_id: str) -> dict[str, float]:
    """A run's final figures by name; 0 for what is no finite number."""
    return {item.metric: item.value or 0.0 for item in client.metrics(run_id).summaries}


def model_name(client: Client, given: str | None) -> str:
    """What the spec names: a folder that exists, or a reference to a run's model; the newest export for None."""
    if given is None:
        run = _newest_export(client)
        typer.echo(f"model: {run.id} ({run.name or run.kind}); --model names another", err=True)
        return f"${{runs.{run.id}.model}}"
    if Path(given).expanduser().is_dir():
        return str(Path(given).expanduser().absolute())
    if re.fullmatch(r"r-[0-9a-z]{4,40}", given) is None:
        fail(f"model {given}: neither a folder nor a run; `distox list --steps` shows runs", code=WRONG)
    return f"${{runs.{given}.model}}"


def _newest_export(client: Client) -> RunView:
    run = next(client.runs(limit=1, kind="export", state="SUCCEEDED"), None)
    if run is None:
        fail("no run has exported a model yet; run `distox quickstart`, or give --model", code=WRONG)
    return run


def _print(spec: AnySpec) -> None:
    """As YAML, without what the defaults say."""
    import yaml

    data = {"kind": spec.kind, **spec.model_dump(mode="json", exclude_defaults=True)}
    typer.echo(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), nl=False)
