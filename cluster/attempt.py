"""The driver of one attempt: ``python -m cluster.attempt RUN EPOCH``, the entrypoint of a Ray job.

Guarantee: whatever ends the attempt is recorded once, under its epoch, in the store that the run belongs to. A driver
that is too late, or the second of its attempt, changes nothing. SIGTERM (what ``ray job stop`` sends, 3 s before
SIGKILL) stops the job like a cancel; what isn't over 2 s later is recorded as lost.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType

from cluster.executors import Execution, execute
from cluster.launch import NAMESPACE
from cluster.pulse import Pulse
from cluster.remote import Assignment, Outcome, outcome_of, prepare_process
from cluster.runs import Cause, Run, State
from cluster.scheduler import ask_of
from cluster.store import StaleEpoch, Store, StoreError
from configs.schema.kinds import Distill, Finetune
from configs.settings import Settings, SettingsError, read_settings

log = logging.getLogger(__name__)

TERM_SECONDS = 2.0
"""Ray kills a stopped job after 3 s; the record must be written before."""
RECORD_SECONDS = 60.0
"""How long a finished attempt waits for a store that is away; its result is on disk meanwhile."""
SHARED_FOLDER = "rows"
"""Parts of a dump outlive the attempt that wrote them: the next one goes on with them."""
CHECKPOINTS_FOLDER = "checkpoints"
"""Beside the attempts' folders: a later attempt of a training goes on from what an earlier one saved."""

CACHE_FOLDER = "cache"
"""In the storage, for all runs: what is costly to make and safe to delete, such as a teacher's states."""


class AttemptError(RuntimeError):
    """The attempt can't begin: settings, store or command line; nothing was recorded."""


def main(arguments: list[str]) -> int:
    """Run one attempt.

    Returns:
        0 when a success or a stop was recorded, 1 when a failure was, 2 when the attempt couldn't begin.
    """
    prepare_process(num_threads=1)
    try:
        run_id, epoch = _parse(arguments)
        settings = read_settings()
        store = _open_store(settings)
        store.start(run_id, epoch)
    except (AttemptError, SettingsError, StoreError, StaleEpoch) as error:
        log.error("%s", error)
        return 2
    return _drive(settings, store, run_id, epoch)


def output_folder(storage_url: str, run: Run, epoch: int) -> Path:
    """Where an attempt writes: below the spec's ``output`` or below the storage, by run and attempt.

    The parts of a detoxify run are shared by its attempts, whose fences keep them apart.

    Raises:
        ValueError: the storage is no absolute local folder.
    """
    root = run.spec.get("output") or storage_url
    if "://" in root:
        raise ValueError(f"the storage {root} is a URL; use an absolute local folder (DISTOX_STORAGE_URL, or output)")
    folder = Path(root).expanduser()
    if not folder.is_absolute():
        raise ValueError(f"the output folder {root} is relative; give an absolute one")
    runs = folder if run.spec.get("output") else folder / "runs"
    return runs / run.id / (SHARED_FOLDER if run.kind == "detoxify" else f"a{epoch}")


def _drive(settings: Settings, store: Store, run_id: str, epoch: int) -> int:
    run = store.get(run_id)
    with Pulse(store, run_id, epoch, is_driver=True) as pulse:
        _stop_on_sigterm(store, pulse, run_id, epoch)
        output: Path | None = None
        try:
            output = output_folder(settings.storage_url, run, epoch)
            output.mkdir(parents=True, exist_ok=True)
            outcome = _execute(settings, store, run, epoch, output, pulse)
        except Exception as error:  # the process's outermost loop: the failure must be recorded
            log.exception("the attempt failed")
            outcome = outcome_of(error)
    code = record(store, run_id, epoch, outcome, output)
    if output is not None:
        _remove_checkpoints(store, run_id, output)
    return code


def _remove_checkpoints(store: Store, run_id: str, output: Path) -> None:
    """Those of a run whose end is recorded; before that the next attempt may need them."""
    try:
        has_ended = store.get(run_id).state.is_terminal
    except StoreError as error:
        log.warning("the checkpoints are left: %s", error)
        return
    if has_ended:
        shutil.rmtree(output.parent / CHECKPOINTS_FOLDER, ignore_errors=True)


def _execute(settings: Settings, store: Store, run: Run, epoch: int, output: Path, pulse: Pulse) -> Outcome:
    import ray

    ray.init(address="auto", namespace=NAMESPACE, log_to_driver=True, logging_level=logging.WARNING)
    spec = run.load_spec()
    assignment = Assignment(
        run_id=run.id,
        epoch=epoch,
        store_url=settings.store_url or settings.default_store_url,
        store_id=store.store_id,
        spec=run.spec,
        output=str(output),
        num_threads=ask_of(run.spec).cpus,
        checkpoints=str(output.parent / CHECKPOINTS_FOLDER) if isinstance(spec, Finetune | Distill) else None,
        cache=None if "://" in settings.storage_url else str(Path(settings.storage_url) / CACHE_FOLDER),
    )
    execution = Execution(assignment, pulse, lambda: store.next_generation(run.id, epoch), settings.redis_url)
    return execute(spec, execution)


def record(
    store: Store, run_id: str, epoch: int, outcome: Outcome, output: Path | None, *, retry_seconds: float = 1.0
) -> int:
    """Write the attempt's end into the store, waiting for one that is away for a while; the exit code."""
    deadline = time.monotonic() + RECORD_SECONDS
    while True:
        try:
            return _record(store, run_id, epoch, outcome, output)
        except StoreError as error:
            log.warning("the end of the attempt waits to be recorded: %s", error)
            if time.monotonic() > deadline:
                return 1
        time.sleep(retry_seconds)


def _record(store: Store, run_id: str, epoch: int, outcome: Outcome, output: Path | None) -> int:
    try:
        if outcome.result is not None:
            store.finish(run_id, epoch, State.SUCCEEDED, result=outcome.result, output=str(output))
            return 0
        if outcome.stopped:
            # After a cancel the run is CANCELLED; without one, somebody stopped the job: it may be tried again.
            after = store.end_attempt(run_id, epoch, Cause.LOST, "it was stopped")
            log.info("stopped: the run is %s", after)
            return 0
        after = store.end_attempt(run_id, epoch, outcome.cause, outcome.error or "it ended without a word")
        log.error("failed (%s): %s; the run is %s", outcome.cause, outcome.error, after)
    except StaleEpoch as error:
        log.warning("%s", error)
    return 1


def _stop_on_sigterm(store: Store, pulse: Pulse, run_id: str, epoch: int) -> None:
    def stop(number: int, frame: FrameType | None) -> None:
        pulse.request_stop()
        timer = threading.Timer(TERM_SECONDS, end)
        timer.daemon = True
        timer.start()

    def end() -> None:
        try:
            store.end_attempt(run_id, epoch, Cause.LOST, "its driver was ended from outside (SIGTERM)")
        except (StaleEpoch, StoreError) as error:
            log.warning("%s", error)
        os._exit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)


def _open_store(settings: Settings) -> Store:
    store = Store.open(settings.store_url or settings.default_store_url)
    if settings.store_id is not None and store.store_id != settings.store_id:
        raise AttemptError(
            f"the store at DISTOX_STORE_URL is {store.store_id}, and this attempt belongs to {settings.store_id}; "
            "another store was put in its place"
        )
    return store


def _parse(arguments: list[str]) -> tuple[str, int]:
    if len(arguments) != 2 or not arguments[1].isdigit():
        raise AttemptError("usage: python -m cluster.attempt RUN EPOCH")
    return arguments[0], int(arguments[1])


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
