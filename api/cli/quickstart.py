"""``distox quickstart``: the whole road on one machine, from a made-up corpus to a table of results.

Guarantee: what it started it ends, whatever happens to it, and an interrupted run of the same spec is taken up again
by the next call (its finished steps are not repeated).
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.cli.stack import settings_or_exit

if TYPE_CHECKING:
    from cluster.runs import Run
    from cluster.stack_state import Stack
    from cluster.store import Store
    from configs.schema.kinds import Pipeline
    from configs.settings import Settings

SPEC = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
POLL_SECONDS = 0.25
CANCEL_SECONDS = 2.0
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
    from cluster.interrupts import signals_as_interrupt

    settings = settings_or_exit()
    started = time.monotonic()
    try:
        with signals_as_interrupt():
            succeeded = _quickstart(settings, spec, num_cpus, started)
    except KeyboardInterrupt:
        typer.echo("interrupted; what this command started is ended", err=True)
        raise typer.Exit(130) from None
    raise typer.Exit(0 if succeeded else 1)


def _quickstart(settings: Settings, file: Path, num_cpus: int | None, started: float) -> bool:
    """Check the spec, then run it on the stack of the home, which is started and ended when there is none."""
    from cluster.stack import is_running, start_stack, stop_stack
    from cluster.stack_state import StackError, read_stack
    from cluster.store import StoreError
    from configs.load import SpecError

    try:
        try:
            spec = _load(file)
            stack = read_stack(settings.home)
            if stack is None or not is_running(stack):
                stack = start_stack(settings, progress=typer.echo, owned=True, num_cpus=num_cpus)
            elif stack.owner_pid is not None:
                owner = f"another distox (process {stack.owner_pid})"
                raise StackError(f"{owner} works in {settings.home}; wait for it, or set DISTOX_HOME to another folder")
            return _run(stack, settings, spec, started)
        finally:
            # What the file says counts: an interruption leaves no time to remember what was started.
            present = read_stack(settings.home)
            if present is not None and present.owner_pid == os.getpid():
                stop_stack(settings.home)
    except (StackError, StoreError, SpecError) as error:
        typer.echo(f"distox quickstart: {error}", err=True)
        raise typer.Exit(2 if isinstance(error, SpecError) else 1) from error


def _load(file: Path) -> Pipeline:
    """The pipeline of a file, its relative paths meaning this folder.

    Raises:
        SpecError: it is wrong.
    """
    from configs.load import load_spec
    from configs.paths import resolve_paths
    from configs.schema.kinds import Pipeline

    spec = resolve_paths(load_spec(file), Path.cwd())
    if not isinstance(spec, Pipeline):
        typer.echo(f"{file}: kind = {spec.kind}: quickstart runs a pipeline; use `distox submit {file}`", err=True)
        raise typer.Exit(2)
    return spec


def _run(stack: Stack, settings: Settings, spec: Pipeline, started: float) -> bool:
    """Submit or take up the pipeline, watch it to its end, and print what came of it."""
    from api.cli.report import print_report
    from api.cli.watch import watch
    from cluster.processes import memory_bytes
    from cluster.store import Store

    store = Store.open(stack.store_url)
    peak_bytes = 0

    def check() -> None:
        nonlocal peak_bytes
        _check(stack, settings)
        peak_bytes = max(peak_bytes, memory_bytes(stack.stack_id))

    try:
        run = _submit_or_resume(store, spec)
        try:
            run = watch(store, run.id, check=check)
        except KeyboardInterrupt:
            _cancel(store, run.id)
            raise
        if run.state.value == "SUCCEEDED":
            print_report(store, run, settings=settings, seconds=time.monotonic() - started, peak_bytes=peak_bytes)
            return True
        typer.echo(f"{run.state}: {run.reason}", err=True)
        typer.echo(f"logs: {settings.home / 'logs'} and {settings.runtime_folder / 'ray'}", err=True)
        return False
    finally:
        store.close()


def _check(stack: Stack, settings: Settings) -> None:
    """See that the stack that works for this command is still there.

    Raises:
        StackError: it was ended.
    """
    from cluster.stack import is_running
    from cluster.stack_state import StackError

    if not is_running(stack):
        raise StackError(f"the stack of {settings.home} was ended; the run goes on at the next call")


def _submit_or_resume(store: Store, spec: Pipeline) -> Run:
    """The unfinished run of the same spec that an earlier, killed call left, else a new one."""
    from configs.load import dump_spec

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
