"""Workers as plain processes, to be killed and stopped by tests; a ``Crew`` without Ray."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from workers.broker import Watched
from workers.lease import Beat, why_hung
from workers.worker import WorkerSettings

ROOT = Path(__file__).resolve().parents[2]


def start_worker(settings: WorkerSettings, handler: str, folder: Path) -> subprocess.Popen[bytes]:
    """A process that works with one of the handlers of ``tests.workers.handlers``."""
    values = json.dumps({**asdict(settings), "output": str(settings.output)})
    command = [sys.executable, "-m", "tests.workers.worker_process", values, handler, str(folder)]
    with (folder / f"{settings.name}.log").open("wb") as log:
        return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)


class ProcessCrew:
    """So many processes; the dead are replaced, the hung ended."""

    def __init__(
        self,
        num_workers: int,
        settings: WorkerSettings,
        handler: str,
        folder: Path,
        *,
        lease_seconds: float = 30.0,
    ) -> None:
        self._num_workers, self._settings, self._handler, self._folder = num_workers, settings, handler, folder
        self._lease_seconds = lease_seconds
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.num_deaths = 0
        self.num_hung = 0
        folder.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        """Fill up."""
        while len(self.processes) < self._num_workers:
            name = uuid.uuid4().hex[:8]
            settings = WorkerSettings(**{**asdict(self._settings), "name": name})
            self.processes[name] = start_worker(settings, self._handler, self._folder)

    def tend(self, watched: Watched, *, settled_seconds: float) -> Sequence[str]:
        """Replace whoever has ended or hangs."""
        for heartbeat in watched.heartbeats:
            if heartbeat.worker in self.processes and why_hung(
                Beat.from_json(heartbeat.beat),
                heartbeat.age_seconds,
                lease_seconds=self._lease_seconds,
                task_seconds=self._settings.task_seconds,
            ):
                self.processes[heartbeat.worker].kill()
                self.processes[heartbeat.worker].wait()
                self.num_hung += 1
        gone = [name for name, process in self.processes.items() if process.poll() is not None]
        for name in gone:
            self.processes.pop(name)
        self.num_deaths += len(gone)
        self.start()
        return gone

    def end(self, grace_seconds: float) -> None:
        """End all."""
        for process in self.processes.values():
            try:
                process.wait(timeout=max(grace_seconds, 0.001))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()
