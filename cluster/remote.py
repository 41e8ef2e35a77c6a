"""What runs in a worker process of an attempt: the job itself, and the word it leaves about its end.

Guarantee: every end becomes an ``Outcome``: a result, a stop, or an error with the question whether trying again could
help. An outcome is plain JSON, so it travels the same way through a Ray task and through a file of a training rank.
"""

from __future__ import annotations

import errno
import importlib
import json
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cluster.pulse import Pulse
from cluster.runs import Cause
from cluster.store import Store
from configs.load import validate_spec
from jobs.context import JobContext, JobResult, JobStopped

log = logging.getLogger(__name__)

DISK_FULL = os.strerror(errno.ENOSPC)
"""How the system's own words begin in whatever exception a library makes of them."""
FREE_SOME_SPACE = "free some space"
STARTED_FILE = "_started"
"""Written by the first worker that runs: the attempt was placed."""


@dataclass(frozen=True)
class Outcome:
    """How a job ended in one process: exactly one of result, stopped and error."""

    result: JobResult | None = None
    stopped: bool = False
    error: str | None = None
    """One line: the exception's name and message."""
    cause: Cause = Cause.ERROR
    """With an error: whether it counts, and against which budget."""

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {
            "result": None if self.result is None else self.result.as_dict(),
            "stopped": self.stopped,
            "error": self.error,
            "cause": str(self.cause),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Outcome:
        """The reverse of ``as_dict``."""
        result = None if data["result"] is None else JobResult.from_dict(data["result"])
        return cls(result, data["stopped"], data["error"], Cause(data["cause"]))


@dataclass(frozen=True)
class Assignment:
    """All that a worker process needs to know of its attempt."""

    run_id: str
    epoch: int
    store_url: str
    store_id: str
    spec: dict[str, Any]
    """Resolved: references are paths."""
    output: str
    num_threads: int
    checkpoints: str | None = None
    """A folder that the attempts of a training share."""
    cache: str | None = None
    """A folder that all runs of the storage share."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as Ray Train passes it on."""
        return asdict(self)


def outcome_of(error: BaseException) -> Outcome:
    """What an exception that ended a job means: a ``ValueError`` is wrong input and never tried again."""
    if isinstance(error, JobStopped):
        return Outcome(stopped=True)
    cause = Cause.WRONG_INPUT if isinstance(error, ValueError) else Cause.ERROR
    return Outcome(error=describe(error), cause=cause)


def describe(error: BaseException) -> str:
    """An exception as one line; of a full disk with the remedy, which no library that writes has."""
    text = " ".join(str(error).split())
    name = type(error).__name__
    words = f"{name}: {text}" if text else name
    if DISK_FULL in text and FREE_SOME_SPACE not in text:
        return f"{words}; {FREE_SOME_SPACE} on the disk that the run writes to, or set output to a folder on another"
    return words


def run_job(assignment: Assignment) -> dict[str, Any]:
    """Run the job of the spec's kind in this process; the outcome as plain data.

    The store is opened anew here: live metrics and the wish to stop go through it, under the attempt's epoch.
    """
    prepare_process(assignment.num_threads)
    output = Path(assignment.output)
    store = Store.open(assignment.store_url)
    try:
        if store.store_id != assignment.store_id:
            return Outcome(error=f"the worker's store is {store.store_id}, not {assignment.store_id}").as_dict()
        with Pulse(store, assignment.run_id, assignment.epoch, is_driver=False) as pulse:
            (output / STARTED_FILE).touch()
            context = JobContext(
                output,
                pulse.report,
                pulse.should_stop,
                assignment.num_threads,
                checkpoints=None if assignment.checkpoints is None else Path(assignment.checkpoints),
                cache=None if assignment.cache is None else Path(assignment.cache),
                epoch=assignment.epoch,
            )
            return _run(assignment.spec, context).as_dict()
    finally:
        store.close()


def run_rank(config: dict[str, Any]) -> None:
    """Run the job on one rank of a training group; the outcome goes into a file of the rank.

    Raises:
        RuntimeError: the job failed: the group must end, the other ranks would wait for this one.
    """
    import ray.train

    assignment = Assignment(**config)
    rank = ray.train.get_context().get_world_rank()
    outcome = run_job(assignment)
    try:
        write_outcome(Path(assignment.output), rank, outcome)
    except OSError as error:
        # A disk that is full has no room for these words either: Ray carries them.
        raise RuntimeError(outcome["error"] or describe(error)) from error
    if outcome["error"] is not None:
        raise RuntimeError(outcome["error"])


def write_outcome(output: Path, rank: int, outcome: dict[str, Any]) -> None:
    """Keep a rank's outcome in a file, whole or not at all."""
    file = outcome_file(output, rank)
    temporary = file.with_suffix(".tmp")
    try:
        temporary.write_text(json.dumps(outcome), "utf-8")
        temporary.replace(file)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def read_outcomes(output: Path, num_ranks: int) -> list[Outcome]:
    """The outcomes that the ranks left, lowest rank first; a rank that died left none."""
    files = [outcome_file(output, rank) for rank in range(num_ranks)]
    return [Outcome.from_dict(json.loads(file.read_text("utf-8"))) for file in files if file.exists()]


def outcome_file(output: Path, rank: int) -> Path:
    """Where a rank's outcome is."""
    return output / f"_outcome-{rank}.json"


def remove_traces(output: Path) -> None:
    """Remove what workers left for their driver; the output then holds only the job's files."""
    for file in [output / STARTED_FILE, *output.glob("_outcome-*.json")]:
        file.unlink(missing_ok=True)


def prepare_process(num_threads: int) -> None:
    """Logging, and the thread count for libraries that read it when they are loaded."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(num_threads)


def _run(spec: dict[str, Any], context: JobContext) -> Outcome:
    try:
        loaded = validate_spec(spec)
        job = importlib.import_module(f"jobs.{loaded.kind}")
        return Outcome(result=job.run(loaded, context))
    except JobStopped as stop:
        return outcome_of(stop)
    except Exception as error:  # the job's outermost frame: any end of it must be recorded
        log.exception("the job failed")
        return outcome_of(error)
