"""A worker in a process of its own: ``python -m tests.workers.worker_process SETTINGS HANDLER FOLDER``."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

from tests.workers.handlers import factory
from workers.worker import Worker, WorkerSettings


def main(settings: str, handler: str, folder: str) -> None:
    """Work until drained or halted."""
    logging.basicConfig(level=logging.INFO)
    values = json.loads(settings)
    worker = Worker(WorkerSettings(**{**values, "output": Path(values["output"])}), factory(handler, Path(folder)))
    worker.drain_on_sigterm()
    worker.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
