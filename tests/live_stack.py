"""A whole embedded stack for tests, started and used through the ``distox`` command as a user does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.processes import find_marked
from cluster.runs import Run
from cluster.stack_state import read_stack
from cluster.store import Store

ROOT = Path(__file__).parents[1]
DISTOX = Path(sys.executable).with_name("distox")


@dataclass(frozen=True)
class LiveStack:
    """A running stack and the store of its home."""

    home: Path
    store: Store
    num_specs: Iterator[int]

    def distox(self, *arguments: str, timeout_seconds: float = 500.0) -> subprocess.CompletedProcess[str]:
        """One ``distox`` command, run in the repository's root."""
        return subprocess.run(
            [str(DISTOX), *arguments],
            env=user_environment(self.home),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_seconds,
        )

    def write_spec(self, spec: Mapping[str, Any]) -> Path:
        """The spec as a file of its own."""
        file = self.home / f"spec-{next(self.num_specs)}.json"
        file.write_text(json.dumps(spec), "utf-8")
        return file

    def submit(self, spec: Mapping[str, Any], *options: str) -> tuple[Run, subprocess.CompletedProcess[str]]:
        """``distox submit``; the run as the store has it afterwards, and what the command said."""
        before = {run.id for run in self.store.list(top_level=True, limit=1000)}
        done = self.distox("submit", str(self.write_spec(spec)), *options)
        made = [run for run in self.store.list(top_level=True, limit=1000) if run.id not in before]
        assert len(made) == 1, f"one run for one submission: {done.stdout}{done.stderr}"
        return made[0], done

    def artifact(self, run: Run, name: str) -> Path:
        """Where an artifact of a run is."""
        return next(Path(item.path) for item in self.store.artifacts(run.id) if item.name == name)

    def log_of(self, run: Run) -> str:
        """The end of what the driver of a run's last attempt wrote."""
        files = sorted(runtime_folder(self.home).glob(f"ray/session_latest/logs/job-driver-{run.id}-a*.log"))
        return files[-1].read_text("utf-8", errors="replace")[-5000:] if files else "no log of its driver"


@contextmanager
def live_stack(*, num_cpus: int = 2, **variables: str) -> Iterator[LiveStack]:
    """Start a stack in a home of its own, and end it; nothing of it is left.

    Args:
        num_cpus: that Ray gives out.
        variables: of the environment of ``distox up``, over this process's own.
    """
    home = Path(tempfile.mkdtemp(prefix="dxhome-", dir="/tmp"))
    environment = {**user_environment(home), **variables}
    try:
        _distox("up", "--num-cpus", str(num_cpus), environment=environment)
        stack = read_stack(home)
        assert stack is not None, "up has written it"
        store = Store.open(stack.store_url)
        try:
            yield LiveStack(home, store, iter(range(1_000_000)))
        finally:
            store.close()
            _distox("down", environment=environment)
        assert find_marked(stack.stack_id) == [], "down leaves no process"
    finally:
        shutil.rmtree(home, ignore_errors=True)
        shutil.rmtree(runtime_folder(home), ignore_errors=True)


def user_environment(home: Path) -> dict[str, str]:
    """The environment of somebody's shell that knows of no other stack."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DISTOX_", "RAY_"))}
    return {**kept, "DISTOX_HOME": str(home), "OMP_NUM_THREADS": "1"}


def runtime_folder(home: Path) -> Path:
    """Where the sockets of a home's stack and Ray's files are."""
    from configs.settings import read_settings

    return read_settings({"DISTOX_HOME": str(home)}).runtime_folder


def _distox(*arguments: str, environment: Mapping[str, str]) -> None:
    done = subprocess.run(
        [str(DISTOX), *arguments], env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, f"distox {arguments[0]}: {done.stdout}{done.stderr}"
