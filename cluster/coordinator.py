"""The coordinator: the one process that reconciles, a detached Ray actor that survives its submitter and its own death.

``python -m cluster.coordinator`` makes sure that it runs and ends. The actor's code is the installed package, because
the class is found by its import path; an older actor is replaced by a newer package, an older package is refused with
both versions named. All state is in the store, so a restart loses nothing.
"""

from __future__ import annotations

import importlib.metadata
import logging
import random
import shlex
import sys
import threading
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from cluster.launch import DRIVER_RESOURCE, NAMESPACE, RayLauncher
from cluster.reconciler import LaunchError, Reconciler
from cluster.store import Store, StoreError
from configs.settings import Settings, SettingsError, read_settings

log = logging.getLogger(__name__)

ACTOR_NAME = "distox-coordinator"
TICK_SECONDS = 0.25
ANSWER_SECONDS = 60.0
"""How long a new actor may take to answer: starting a process and importing Ray on a loaded machine."""


class CoordinatorError(RuntimeError):
    """The coordinator can't be started or is of another version; the message says what to do."""


class Coordinator:
    """The actor: a thread that ticks, and methods that answer meanwhile."""

    def __init__(self, store_url: str, store_id: str | None) -> None:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._store_url, self._store_id = store_url, store_id
        self._fault: str | None = None
        self._ticks = 0
        self._reconciler: Reconciler | None = None
        threading.Thread(target=self._run, name="reconciler", daemon=True).start()

    def version(self) -> str:
        """The version of the package that it runs."""
        return package_version()

    def health(self) -> dict[str, Any]:
        """How many ticks went by, and what keeps the next one from working."""
        return {"ticks": self._ticks, "fault": self._fault}

    def _run(self) -> None:
        while True:
            began = time.monotonic()
            self._fault = self._tick()
            self._ticks += 1
            time.sleep(max(0.0, TICK_SECONDS - (time.monotonic() - began)))

    def _tick(self) -> str | None:
        """One tick; an error is recorded and logged, and the next tick tries again."""
        try:
            if self._reconciler is None:
                self._reconciler = self._make_reconciler()
            self._reconciler.tick()
        except (StoreError, LaunchError) as error:
            log.warning("tick failed: %s", error)
            return str(error)
        except Exception as error:  # the outermost loop of the process: it must go on
            log.exception("tick failed")
            return repr(error)
        return None

    def _make_reconciler(self) -> Reconciler:
        store = Store.open(self._store_url)
        if self._store_id is not None and store.store_id != self._store_id:
            raise StoreError(f"the store at DISTOX_STORE_URL is {store.store_id}, not {self._store_id}")
        return Reconciler(
            store,
            RayLauncher.connect(),
            now=lambda: datetime.now(UTC),
            monotonic=time.monotonic,
            chance=random.random,
        )


def package_version() -> str:
    """The installed distribution's version; 0.0.0 where only the source is there."""
    try:
        return importlib.metadata.version("distox")
    except importlib.metadata.PackageNotFoundError:
        return "0.0.0"


def ensure_coordinator(settings: Settings) -> None:
    """Make sure that a coordinator of this version runs; called in a process that Ray started.

    Raises:
        CoordinatorError: a newer one runs, or the new one can't work; the message says why.
    """
    import ray

    ray.init(address="auto", namespace=NAMESPACE, log_to_driver=False, logging_level=logging.WARNING)
    actor = _get_or_create(ray, settings)
    running = _answer(ray, actor.version.remote())
    if running != package_version():
        refuse_older(running)
        log.info("coordinator %s is replaced by %s", running, package_version())
        ray.kill(actor, no_restart=True)
        actor = _wait_for_new(ray, settings, old=actor)
    _wait_for_tick(ray, actor)


def _get_or_create(ray: Any, settings: Settings) -> Any:
    # By its import path: under ``python -m`` the class of __main__ would travel as a copy of this file.
    from cluster.coordinator import Coordinator as Installed

    options = {"name": ACTOR_NAME, "namespace": NAMESPACE, "lifetime": "detached", "get_if_exists": True}
    placed = {"num_cpus": 0, "resources": {DRIVER_RESOURCE: 1}, "max_restarts": -1, "max_concurrency": 4}
    store_url = settings.store_url or settings.default_store_url
    return ray.remote(Installed).options(**options, **placed).remote(store_url, settings.store_id)


def _wait_for_new(ray: Any, settings: Settings, *, old: Any) -> Any:
    """The successor; the name is free only once the old actor is seen to be gone."""
    deadline = time.monotonic() + ANSWER_SECONDS
    while True:
        actor = _get_or_create(ray, settings)
        if actor._actor_id != old._actor_id:
            return actor
        if time.monotonic() > deadline:
            raise CoordinatorError(f"the old coordinator didn't end within {ANSWER_SECONDS:.0f} s")
        time.sleep(0.1)


def _wait_for_tick(ray: Any, actor: Any) -> None:
    deadline = time.monotonic() + ANSWER_SECONDS
    while True:
        health = _answer(ray, actor.health.remote())
        if health["ticks"] and health["fault"] is None:
            return
        if health["fault"] is not None and time.monotonic() > deadline - ANSWER_SECONDS + 10:
            raise CoordinatorError(f"the coordinator can't work: {health['fault']}")
        if time.monotonic() > deadline:
            raise CoordinatorError(f"the coordinator didn't tick within {ANSWER_SECONDS:.0f} s")
        time.sleep(0.05)


def _answer(ray: Any, reference: Any) -> Any:
    try:
        return ray.get(reference, timeout=ANSWER_SECONDS)
    except (ray.exceptions.RayError, TimeoutError) as error:
        raise CoordinatorError(f"the coordinator doesn't answer ({str(error).strip().splitlines()[-1]})") from error


def refuse_older(running: str) -> None:
    """Raise when the coordinator that runs is newer than this package.

    Raises:
        CoordinatorError: it is; both versions are named.
    """
    if _order(running) > _order(package_version()):
        raise CoordinatorError(
            f"the coordinator that runs is of distox {running}, newer than this {package_version()}; "
            "install the newer distox here"
        )


def refuse_other_store(settings: Settings, wanted: str) -> None:
    """Raise when the processes of this cluster use another store than the one that is asked for.

    Raises:
        CoordinatorError: they do; runs of the wanted store would wait for ever.
        StoreError: theirs can't be opened.
    """
    store = Store.open(settings.store_url or settings.default_store_url)
    found = store.store_id
    store.close()
    if found != wanted:
        raise CoordinatorError(
            f"this Ray cluster works for the store {found}, not for {wanted}; use its DISTOX_STORE_URL, or a cluster "
            "that was started with yours in its environment"
        )


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else 0 for part in version.split("."))


def _run_as_job(settings: Settings) -> int:
    """Run this module as a job on the cluster: only processes that Ray started know where its head is."""
    from ray.job_submission import JobStatus, JobSubmissionClient

    if settings.ray_address is None:
        raise CoordinatorError("RAY_ADDRESS is not set; set it to the cluster's http://host:port, or use `distox up`")
    try:
        client = JobSubmissionClient(settings.ray_address)
        name = _submit_job(client, settings.store_id or "")
        while not (status := client.get_job_status(name)).is_terminal():
            time.sleep(0.1)
        if status == JobStatus.SUCCEEDED:
            return 0
        sys.stderr.write(client.get_job_logs(name))
    except (RuntimeError, OSError) as error:
        raise CoordinatorError(f"Ray at {settings.ray_address} can't be used ({error})") from error
    return 1


def _submit_job(client: Any, store_id: str) -> str:
    """Submit the job that ensures the coordinator, waiting for a head that is just up and has no agent yet."""
    deadline = time.monotonic() + ANSWER_SECONDS
    while True:
        try:
            return str(
                client.submit_job(
                    entrypoint=f"{shlex.quote(sys.executable)} -m cluster.coordinator {store_id}",
                    submission_id=f"{ACTOR_NAME}-{uuid.uuid4().hex[:8]}",
                    entrypoint_resources={DRIVER_RESOURCE: 1},
                )
            )
        except RuntimeError as error:
            if "No available agent" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.2)


def main(arguments: Sequence[str]) -> int:
    """The command; 0 when the coordinator runs, 1 with the reason when not.

    Args:
        arguments: inside a Ray job, the id of the store that the coordinator has to serve.
    """
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    try:
        settings = read_settings()
        if settings.ray_submission_id is None:
            return _run_as_job(settings)
        if arguments:
            refuse_other_store(settings, arguments[0])
        ensure_coordinator(settings)
    except (CoordinatorError, SettingsError, StoreError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
