"""``distox quickstart``: the whole road on one machine, from a made-up corpus to a table of results.

Guarantee: what it started it ends, whatever happens to it, and an interrupted run of the same spec is taken up again
by the next call (its finished steps are not repeated).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.cli.stack import settings_or_exit

if TYPE_CHECKING:
    from cluster.runs import Run
    from cluster.stack_state import Stack
    from cluster.store import Store
    from configs.settings import Settings

SPEC = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
POLL_SECONDS = 0.25
CANCEL_SECONDS = 3.0
"""How long Ctrl-C waits for the run to be cancelled before the stack is ended anyway; all is over within 10 s."""


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(quickstart)


def quickstart(
    spec: Annotated[Path, typer.Option(help="A pipeline to run instead of the packaged one.")] = SPEC,
    num_cpus: Annotated[int | None, typer.Option(help="CPUs that Ray may give out; all when left out.", min=1)] = None,
) -> None:
    """Train a teacher, distil a student, detoxify a dump and judge the results, all on this machine in a few minutes.

    It starts the embedded stack in $DISTOX_HOME (default ./.distox), runs configs/quickstart.yaml through Ray, Redis
    and the results store, prints a table, and leaves nothing running. A stack that runs there already is used and left.
    """
    from cluster.stack import is_running, signals_as_interrupt, start_stack, stop_stack
    from cluster.stack_state import StackError, read_stack
    from cluster.store import StoreError
    from configs.load import SpecError

    settings = settings_or_exit()
    started = time.monotonic()
    owned = False
    try:
        with signals_as_interrupt():
            try:
                stack = read_stack(settings.home)
                if stack is None or not is_running(stack):
                    owned = True
                    stack = start_stack(settings, progress=typer.echo, owned=True, num_cpus=num_cpus)
                succeeded = _run(stack, settings, spec, started)
            finally:
                if owned:
                    stop_stack(settings.home)
    except (StackError, StoreError, SpecError) as error:
        typer.echo(f"distox quickstart: {error}", err=True)
        raise typer.Exit(2 if isinstance(error, SpecError) else 1) from error
    except KeyboardInterrupt:
        typer.echo("interrupted; nothing is left running", err=True)
        raise typer.Exit(130) from None
    raise typer.Exit(0 if succeeded else 1)


def _run(stack: Stack, settings: Settings, file: Path, started: float) -> bool:
    """Submit or take up the pipeline, watch it to its end, and print what came of it."""
    from api.cli.report import print_report
    from api.cli.watch import watch
    from cluster.store import Store

    store = Store.open(stack.store_url)
    try:
        run = _submit_or_resume(store, file)
        try:
            run = watch(store, run.id)
        except KeyboardInterrupt:
            _cancel(store, run.id)
            raise
        if run.state.value == "SUCCEEDED":
            print_report(store, run, settings=settings, seconds=time.monotonic() - started)
            return True
        typer.echo(f"{run.state}: {run.reason}", err=True)
        typer.echo(f"logs: {settings.home / 'logs'} and {settings.runtime_folder / 'ray'}", err=True)
        return False
    finally:
        store.close()


def _submit_or_resume(store: Store, file: Path) -> Run:
    """The unfinished run of the same spec that an earlier, killed call left, else a new one."""
    from configs.load import dump_spec, load_spec

    spec = load_spec(file)
    for run in store.list(owner="local", kind="pipeline", name=spec.name, top_level=True):
        if not run.state.is_terminal and not run.cancel_requested and run.spec == dump_spec(spec):
            typer.echo(f"taking up {run.id}, which was interrupted; finished steps are kept")
            return run
    return store.submit(spec, owner="local")


def _cancel(store: Store, run_id: str) -> None:
    store.request_cancel(run_id)
    deadline = time.monotonic() + CANCEL_SECONDS
    while not store.get(run_id).state.is_terminal and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
