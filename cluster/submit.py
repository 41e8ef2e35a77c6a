"""Submits a spec and follows the run: ``python -m cluster.submit SPEC``, made for ``ray job submit``.

Guarantee: one Ray submission makes one run, however often this command is run for it. The exit code is 0 only when the
run SUCCEEDED, 1 when it FAILED, 2 when it wasn't submitted, 130 when it was cancelled; ended by a signal, it first asks
for the run's cancellation and then exits with 128 + the signal's number. Loads no torch, and ray only on a cluster that
distox didn't start, to see whether its machines share what the settings name.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from cluster.follow import Line, follow, format_line
from cluster.places import PlaceError, check_cluster
from cluster.references import resolve_runs
from cluster.runs import Run, State, job_id
from cluster.store import Store, StoreError
from configs.load import SpecError, load_spec
from configs.paths import resolve_paths
from configs.schema.kinds import AnySpec
from configs.settings import Settings, SettingsError, read_settings

OWNER = "local"
"""Whoever may submit to Ray may do all that Ray's one token allows; owners with keys come through the API."""
IN_RAY_SECONDS = 2.0
"""Ray kills a stopped job 3 s after SIGTERM."""
AT_A_SHELL_SECONDS = 30.0
CANCELLED_CODE = 130


class Interrupted(BaseException):
    """A signal asked this process to end; raised where the main thread is, so that no lock stays held."""

    def __init__(self, number: int) -> None:
        self.number = number


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    options = _parse(arguments)
    try:
        settings = read_settings()
        spec = resolve_paths(load_spec(options.spec), Path.cwd())
        if (advice := check_cluster(settings)) is not None:
            _say(advice)
        store = open_store(settings)
        # Who may submit a Ray job may read every run anyway.
        spec = resolve_runs(spec, store, may_read=lambda run: True)
    except (SpecError, SettingsError, StoreError, PlaceError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if options.name is not None:
        spec = spec.model_copy(update={"name": options.name})
    return _submit(spec, store, settings, detach=options.detach)


def open_store(settings: Settings) -> Store:
    """The store of the settings.

    Raises:
        StoreError: it can't be used, or is another one than ``DISTOX_STORE_ID`` says.
    """
    store = Store.open(settings.store_url or settings.default_store_url)
    if settings.store_id is not None and store.store_id != settings.store_id:
        raise StoreError(
            f"the store at DISTOX_STORE_URL is {store.store_id}, but DISTOX_STORE_ID is {settings.store_id}; "
            'take both from the running stack: eval "$(distox env)"'
        )
    return store


def _submit(spec: AnySpec, store: Store, settings: Settings, *, detach: bool) -> int:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)
    run: Run | None = None
    try:
        run = store.submit(spec, owner=OWNER, submission_id=settings.ray_submission_id)
        _say(f"submitted {run.kind} {run.name or ''} as {run.id}".replace("  ", " "))
        if detach:
            return 0
        return _report(store, follow(store, run.id, emit=_emit))
    except Interrupted as interruption:
        return _cancel(store, run, settings, interruption.number)
    except StoreError as error:
        sys.stderr.write(f"{error}\n")
        return 2 if run is None else 1


def _cancel(store: Store, run: Run | None, settings: Settings, number: int) -> int:
    """Ask for the cancellation at once, then wait a little for the run's end. A second signal ends this at once."""
    for item in (signal.SIGTERM, signal.SIGINT):
        signal.signal(item, _leave)
    if run is None and settings.ray_submission_id is not None:
        run = store.find_submission(OWNER, settings.ray_submission_id)
    if run is not None:
        store.request_cancel(run.id)
        _say(f"cancelling {run.id}")
        seconds = IN_RAY_SECONDS if settings.ray_submission_id is not None else AT_A_SHELL_SECONDS
        deadline = time.monotonic() + seconds
        run = follow(store, run.id, emit=_emit, should_stop=lambda: time.monotonic() > deadline, poll_seconds=0.1)
        _say(f"{run.id} is {run.state}")
    return 128 + number


def _report(store: Store, run: Run) -> int:
    """Say how the run ended; the exit code."""
    if run.state is State.SUCCEEDED:
        for item in store.artifacts(run.id):
            _say(f"{item.name}: {item.path}")
        return 0
    if run.state is State.CANCELLED:
        _say(f"{run.id} was cancelled")
        return CANCELLED_CODE
    sys.stderr.write(f"{run.id} failed: {run.reason}\n")
    failed = next(iter(store.list(parent=run.id, state=State.FAILED)), run)
    if failed.epoch:
        sys.stderr.write(f"its log: ray job logs {job_id(failed.id, failed.epoch)}\n")
    return 1


def _emit(line: Line) -> None:
    _say(format_line(line))


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise Interrupted(number)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    os._exit(128 + number)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m cluster.submit", description="Submit a spec and follow its run.")
    parser.add_argument("spec", help="a YAML or JSON spec")
    parser.add_argument("--detach", action="store_true", help="return as soon as the run is recorded")
    parser.add_argument("--name", help="the run's name, instead of the spec's")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
