"""Starts and ends attempts as Ray Jobs, and says what Ray knows of them.

Guarantee: one attempt is one job, because its submission id is made of run and epoch and Ray refuses a second job of
the same id. The job's code is the installed package and its environment that of the Ray node; it asks for the custom
resource ``distox_driver`` and no CPU, so that drivers never take room from workers.
"""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from cluster.reconciler import LaunchError, LaunchStatus, Phase
from cluster.runs import Cause, Run, job_id
from cluster.scheduler import Capacity, Node

log = logging.getLogger(__name__)

DRIVER_RESOURCE = "distox_driver"
"""A custom resource that every node of a distox cluster has plenty of."""
NAMESPACE = "distox"
SIGNAL_BASE = 128
"""A shell's exit code for a command that a signal ended is this plus the signal's number."""
MAX_LOG_LINES = 200
"""How much of a dead driver's log is searched for its error."""

_Result = TypeVar("_Result")


class RayLauncher:
    """The launcher of the real cluster; made inside a process that is connected to Ray."""

    def __init__(self, client: Any, list_nodes: Callable[[], Iterable[dict[str, Any]]]) -> None:
        self._client = client
        self._list_nodes = list_nodes

    @classmethod
    def connect(cls) -> RayLauncher:
        """A launcher for the cluster that this process is connected to.

        Raises:
            LaunchError: its job server doesn't answer.
        """
        import ray
        from ray.job_submission import JobSubmissionClient

        address = ray.get_runtime_context().gcs_address
        return cls(_asked(lambda: JobSubmissionClient(address)), ray.nodes)

    def launch(self, run: Run, epoch: int) -> None:
        """Submit the attempt's job; does nothing when Ray knows it already.

        Raises:
            LaunchError: the job server can't be reached or refuses.
        """
        name = job_id(run.id, epoch)
        try:
            _asked(
                lambda: self._client.submit_job(
                    entrypoint=f"{shlex.quote(sys.executable)} -m cluster.attempt {run.id} {epoch}",
                    submission_id=name,
                    entrypoint_resources={DRIVER_RESOURCE: 1},
                    metadata={"distox_run": run.id, "distox_epoch": str(epoch)},
                )
            )
        except LaunchError:
            if self._info(name) is None:
                raise
            log.info("%s was launched before", name)

    def status(self, run: Run, epoch: int) -> LaunchStatus:
        """What Ray knows of the attempt's job.

        Raises:
            LaunchError: the job server can't be reached.
        """
        name = job_id(run.id, epoch)
        info = self._info(name)
        if info is None:
            return LaunchStatus(Phase.MISSING)
        if not info.status.is_terminal():
            return LaunchStatus(Phase.LIVE)
        cause = Cause.LOST if _is_lost(str(info.error_type or "")) else Cause.ERROR
        code = info.driver_exit_code
        if code is not None and (code < 0 or code > SIGNAL_BASE):
            number = -code if code < 0 else code - SIGNAL_BASE
            return LaunchStatus(Phase.ENDED, cause, f"its driver was ended by signal {number}")
        return LaunchStatus(Phase.ENDED, cause, self._last_words(name) or info.message or "")

    def stop(self, run: Run, epoch: int) -> None:
        """Ask Ray to end the attempt's job: SIGTERM, and SIGKILL after 3 s.

        Raises:
            LaunchError: the job server can't be reached.
        """
        name = job_id(run.id, epoch)
        info = self._info(name)
        if info is not None and not info.status.is_terminal():
            _asked(lambda: self._client.stop_job(name))

    def capacity(self) -> Capacity:
        """The living nodes with their CPUs and GPUs."""
        resources = [node["Resources"] for node in _asked(self._list_nodes) if node.get("Alive")]
        return Capacity(tuple(Node(float(item.get("CPU", 0)), float(item.get("GPU", 0))) for item in resources))

    def _info(self, name: str) -> Any | None:
        """What Ray keeps of a job; None when it never heard of it."""
        try:
            return _asked(lambda: self._client.get_job_info(name))
        except LaunchError as error:
            if "status code 404" in str(error):
                return None
            raise

    def _last_words(self, name: str) -> str:
        try:
            lines = _asked(lambda: self._client.get_job_logs(name)).splitlines()
        except LaunchError:
            return ""
        return last_words(lines[-MAX_LOG_LINES:])


def last_words(lines: list[str]) -> str:
    """The line of a log that says best why the process ended: its last exception, else its last line."""
    written = [line.strip() for line in lines if line.strip()]
    for line in reversed(written):
        name = line.split(":", 1)[0]
        if name.replace(".", "").replace("_", "").isalnum() and name.endswith(("Error", "Exception", "Interrupt")):
            return line
    return written[-1] if written else ""


def _is_lost(error_type: str) -> bool:
    """Whether the job's supervisor went away, rather than its command."""
    return "SUPERVISOR" in error_type.upper()


def _asked(call: Callable[[], _Result]) -> _Result:
    """Ask Ray's job server; its client raises RuntimeError for every refusal and requests' errors for a dead server."""
    try:
        return call()
    except (RuntimeError, OSError, ValueError) as error:
        raise LaunchError(f"Ray's job server: {' '.join(str(error).split())[:500] or repr(error)}") from error
