"""How each kind of run is executed by its driver: a Ray task, a group of training ranks, or a pool over the queue.

Every way ends in an ``Outcome`` and leaves no Ray worker behind. Retrying is nobody's business here: Ray is told to try
nothing again. The driver itself takes no CPU; workers ask for all the CPUs they use.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.pulse import Pulse
from cluster.remote import (
    STARTED_FILE,
    Assignment,
    Outcome,
    describe,
    outcome_of,
    read_outcomes,
    remove_traces,
    run_job,
    run_rank,
)
from cluster.runs import Cause, job_id
from cluster.scheduler import ask_of
from configs.schema.kinds import AnySpec, Detoxify, Distill, Finetune
from jobs.context import JobResult, JobStopped, Summary

log = logging.getLogger(__name__)

PLACEMENT_SECONDS = 180.0
"""The scheduler has seen room; Ray must give it by then, loading included. Ray Train would try for ever."""
POLL_SECONDS = 0.2
BYTES_PER_GB = 1_000_000_000
TRAIN_ENVIRONMENT = {
    # The group's end is seen at a poll; the default of 2 s is that much waiting for each short run.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",
    # An actor of its own whose start the workers wait for; preemption goes through should_stop here.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
"""Together they cut the way from ``fit()`` to the first line of the job from 16 s to 8 s on two cores."""
NODE_DEATH = "node has died"
"""In Ray's words for the death of an actor whose machine is gone."""
TRAIN_FOLDER = "_train"
"""Ray Train's own state, in the attempt's folder and gone with the attempt."""


@dataclass(frozen=True)
class Execution:
    """What an executor needs besides the spec."""

    assignment: Assignment
    pulse: Pulse
    next_generation: Callable[[], int]
    redis_url: str | None

    @property
    def output(self) -> Path:
        """The attempt's folder."""
        return Path(self.assignment.output)


class NotPlaced(RuntimeError):  # noqa: N818 (an outcome of waiting)
    """Ray gave no room in time although the scheduler saw some."""


def execute(spec: AnySpec, execution: Execution) -> Outcome:
    """Run a spec that is no pipeline to its end; never raises for what the job does."""
    import ray

    try:
        if isinstance(spec, Detoxify):
            return _run_pool(spec, execution)
        if isinstance(spec, Finetune | Distill):
            return _run_training(spec, execution)
        return _run_task(spec, execution)
    except NotPlaced as error:
        return Outcome(error=str(error), cause=Cause.LOST)
    except JobStopped:
        return Outcome(stopped=True)
    except ray.exceptions.NodeDiedError as error:
        return Outcome(error=describe(error), cause=Cause.LOST)
    except ray.exceptions.RayError as error:
        return Outcome(error=describe(error), cause=Cause.ERROR)


def _run_task(spec: AnySpec, execution: Execution) -> Outcome:
    """One task with all that the spec asks for."""
    import ray

    asked = spec.resources
    options = {"num_cpus": asked.cpus, "num_gpus": asked.gpus, "max_retries": 0, "name": _name(execution)}
    if asked.gpu_type is not None:
        options["accelerator_type"] = asked.gpu_type
    if asked.memory_gb is not None:
        options["memory"] = int(asked.memory_gb * BYTES_PER_GB)
    reference = ray.remote(run_job).options(**options).remote(execution.assignment)
    _wait(execution, lambda: bool(ray.wait([reference], timeout=POLL_SECONDS)[0]))
    outcome = Outcome.from_dict(ray.get(reference))
    remove_traces(execution.output)
    return outcome


def _run_training(spec: Finetune | Distill, execution: Execution) -> Outcome:
    """A group of ranks under Ray Train: all of them or none, one try."""
    trainer = _make_trainer(spec, execution)
    failures: list[BaseException] = []
    # In a thread of its own: fit() blocks, also for a group that Ray can't place, and would take Ctrl-C for itself.
    thread = threading.Thread(target=_fit, args=(trainer, failures), name="fit", daemon=True)
    thread.start()
    _wait(execution, lambda: _ended(thread))
    outcome = merge(read_outcomes(execution.output, spec.num_workers), failures)
    shutil.rmtree(execution.output / TRAIN_FOLDER, ignore_errors=True)
    remove_traces(execution.output)
    return outcome


def _make_trainer(spec: Finetune | Distill, execution: Execution) -> Any:
    for name, value in TRAIN_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    asked = spec.resources
    per_worker: dict[str, float] = {"CPU": asked.cpus}
    if asked.gpus:
        per_worker["GPU"] = asked.gpus
    if asked.memory_gb is not None:
        per_worker["memory"] = asked.memory_gb * BYTES_PER_GB
    return TorchTrainer(
        run_rank,
        train_loop_config=execution.assignment.as_dict(),
        scaling_config=ScalingConfig(
            num_workers=spec.num_workers,
            use_gpu=asked.gpus > 0,
            resources_per_worker=per_worker,
            accelerator_type=asked.gpu_type,
        ),
        run_config=RunConfig(
            # A zombie attempt and its successor never share a name, so neither resumes from the other's snapshot.
            name=_name(execution),
            storage_path=str(execution.output / TRAIN_FOLDER),
            failure_config=FailureConfig(max_failures=0),
        ),
    )


def _fit(trainer: Any, failures: list[BaseException]) -> None:
    try:
        trainer.fit()
    except Exception as error:  # noqa: BLE001 (the thread's outermost frame: the driver reads what it left)
        failures.append(error)


def merge(outcomes: Sequence[Outcome], failures: Sequence[BaseException]) -> Outcome:
    """What the ranks' words mean together: wrong input before other errors, errors before stops, stops before success.

    The result is that of rank 0, the only one that writes.
    """
    errors = sorted(
        (item for item in outcomes if item.error is not None), key=lambda item: item.cause is not Cause.WRONG_INPUT
    )
    if errors:
        return errors[0]
    if failures:
        return Outcome(error=_worker_failure(failures[0]), cause=_cause(failures[0]))
    if any(item.stopped for item in outcomes):
        return Outcome(stopped=True)
    if not outcomes or outcomes[0].result is None:
        return Outcome(error="the training group ended and rank 0 left no result")
    return outcomes[0]


def _cause(error: BaseException) -> Cause:
    """Whether a group ended because a node died, which is nobody's mistake."""
    import ray

    deaths = [*getattr(error, "worker_failures", {}).values(), getattr(error, "controller_failure", error)]
    if any(isinstance(death, ray.exceptions.NodeDiedError) or NODE_DEATH in str(death) for death in deaths):
        return Cause.LOST
    return Cause.ERROR


def _worker_failure(error: BaseException) -> str:
    """What Ray Train says of a rank that died without a word (killed, out of memory)."""
    ranks: dict[int, BaseException] = getattr(error, "worker_failures", {})
    if not ranks:
        return describe(getattr(error, "controller_failure", error))
    rank, failure = min(ranks.items())
    words = describe(failure)
    if "process has died" in words:
        # Ray's own text is a page; what it knows beyond this is the exit detail.
        detail = words.partition("Worker exit detail: ")[2].partition(" Some common causes")[0]
        words = f"its process was killed, ran out of memory, or crashed ({detail or 'no detail'})"
    return f"rank {rank} died: {words}"


def _run_pool(spec: Detoxify, execution: Execution) -> Outcome:
    """Workers over the queue; this process plans, feeds and watches."""
    from workers.pool import run_pool

    if execution.redis_url is None:
        return Outcome(error="DISTOX_REDIS_URL is not set; detoxify needs Redis", cause=Cause.WRONG_INPUT)
    began = time.monotonic()
    try:
        bulk = run_pool(
            spec,
            run=execution.assignment.run_id,
            epoch=execution.assignment.epoch,
            next_generation=execution.next_generation,
            redis_url=execution.redis_url,
            output=execution.output,
            report=execution.pulse.report,
            should_stop=execution.pulse.should_stop,
        )
    except Exception as error:  # the job's outermost frame: any end of it must be recorded
        log.exception("the pool failed")
        return outcome_of(error)
    seconds = max(time.monotonic() - began, 1e-9)
    rows = bulk.merged or bulk.manifest
    counts = [Summary(f"rows_{status}", float(count)) for status, count in bulk.counts.items()]
    summaries = [Summary("rows", float(bulk.rows)), *counts, Summary("rows_per_second", bulk.rows / seconds)]
    if spec.samples > 1 or spec.keep is not None:
        summaries += [Summary(f"candidates_{name}", float(count)) for name, count in bulk.candidates.items()]
    artifacts = {
        "rows": str(rows.relative_to(execution.output)),
        "manifest": str(bulk.manifest.relative_to(execution.output)),
    }
    return Outcome(result=JobResult(artifacts, summaries))


def _wait(execution: Execution, has_ended: Callable[[], bool]) -> None:
    """Wait for the job's end; a job that has no worker yet is given up when it is stopped or not placed in time.

    Raises:
        JobStopped: it was to stop before any worker had started.
        NotPlaced: no worker has started within ``PLACEMENT_SECONDS``.
    """
    started = execution.output / STARTED_FILE
    deadline = time.monotonic() + PLACEMENT_SECONDS
    while not has_ended():
        if started.exists():
            continue
        if execution.pulse.should_stop():
            raise JobStopped
        if time.monotonic() > deadline:
            ask = ask_of(execution.assignment.spec)
            raise NotPlaced(f"Ray gave no room for {ask} within {PLACEMENT_SECONDS:.0f} s")


def _ended(thread: threading.Thread) -> bool:
    thread.join(POLL_SECONDS)
    return not thread.is_alive()


def _name(execution: Execution) -> str:
    return job_id(execution.assignment.run_id, execution.assignment.epoch)
