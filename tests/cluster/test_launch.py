"""The launcher against a job server made by hand, which answers as Ray's client does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from cluster.coordinator import CoordinatorError, package_version, refuse_older
from cluster.launch import RayLauncher, last_words
from cluster.reconciler import LaunchError, LaunchStatus, Phase
from cluster.runs import Cause, Run
from cluster.scheduler import Capacity, Node
from cluster.store import Store
from tests.cluster import specs


@dataclass
class Status:
    word: str

    def is_terminal(self) -> bool:
        return self.word not in ("PENDING", "RUNNING")


@dataclass
class Info:
    status: Status
    message: str = ""
    error_type: str | None = None
    driver_exit_code: int | None = None


@dataclass
class FakeClient:
    jobs: dict[str, Info] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)
    submitted: list[dict[str, Any]] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    is_away: bool = False

    def submit_job(self, **values: Any) -> str:
        self._answer()
        name = values["submission_id"]
        if name in self.jobs:
            raise RuntimeError("Request failed with status code 400: a job with this submission_id exists.")
        self.submitted.append(values)
        self.jobs[name] = Info(Status("PENDING"))
        return str(name)

    def get_job_info(self, name: str) -> Info:
        self._answer()
        if name not in self.jobs:
            raise RuntimeError(f"Request failed with status code 404: Job {name} does not exist.")
        return self.jobs[name]

    def get_job_logs(self, name: str) -> str:
        self._answer()
        return self.logs.get(name, "")

    def stop_job(self, name: str) -> bool:
        self._answer()
        self.stopped.append(name)
        return True

    def _answer(self) -> None:
        if self.is_away:
            raise ConnectionError("refused")


@pytest.fixture
def client() -> FakeClient:
    return FakeClient()


@pytest.fixture
def launcher(client: FakeClient) -> RayLauncher:
    nodes = [
        {"Alive": True, "Resources": {"CPU": 2.0, "distox_driver": 1000.0}},
        {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 1.0}},
        {"Alive": False, "Resources": {"CPU": 64.0}},
    ]
    return RayLauncher(client, lambda: nodes)


@pytest.fixture
def run(sqlite_store: Store) -> Run:
    return sqlite_store.submit(specs.prepare(), owner="local")


def test_an_attempt_is_a_job_of_its_own_that_takes_no_cpu(launcher: RayLauncher, client: FakeClient, run: Run) -> None:
    launcher.launch(run, 2)
    (job,) = client.submitted
    assert job["submission_id"] == f"{run.id}-a2"
    assert job["entrypoint"].endswith(f"-m cluster.attempt {run.id} 2")
    assert job["entrypoint_resources"] == {"distox_driver": 1}
    assert "entrypoint_num_cpus" not in job


def test_launching_again_does_nothing(launcher: RayLauncher, client: FakeClient, run: Run) -> None:
    launcher.launch(run, 1)
    launcher.launch(run, 1)
    assert len(client.submitted) == 1


def test_a_job_server_that_is_away_is_a_launch_error(launcher: RayLauncher, client: FakeClient, run: Run) -> None:
    client.is_away = True
    for call in (launcher.launch, launcher.status, launcher.stop):
        with pytest.raises(LaunchError, match="refused"):
            call(run, 1)


@pytest.mark.parametrize(
    ("info", "log", "expected"),
    [
        (Info(Status("PENDING")), "", LaunchStatus(Phase.LIVE)),
        (Info(Status("RUNNING")), "", LaunchStatus(Phase.LIVE)),
        (
            Info(Status("FAILED"), "failed", "JOB_ENTRYPOINT_COMMAND_ERROR", 1),
            "Traceback\n  File x\nOSError: [Errno 28] No space left on device\n",
            LaunchStatus(Phase.ENDED, Cause.ERROR, "OSError: [Errno 28] No space left on device"),
        ),
        (
            Info(Status("FAILED"), "failed", "JOB_ENTRYPOINT_COMMAND_ERROR", 137),
            "Killed\n",
            LaunchStatus(Phase.ENDED, Cause.ERROR, "its driver was ended by signal 9"),
        ),
        (
            Info(Status("FAILED"), "Job supervisor actor died", "JOB_SUPERVISOR_ACTOR_DIED"),
            "",
            LaunchStatus(Phase.ENDED, Cause.LOST, "Job supervisor actor died"),
        ),
        (Info(Status("STOPPED"), "stopped"), "", LaunchStatus(Phase.ENDED, Cause.ERROR, "stopped")),
    ],
)
def test_what_ray_says_of_a_job_is_translated(
    launcher: RayLauncher, client: FakeClient, run: Run, info: Info, log: str, expected: LaunchStatus
) -> None:
    client.jobs[f"{run.id}-a1"] = info
    client.logs[f"{run.id}-a1"] = log
    assert launcher.status(run, 1) == expected


def test_a_job_that_ray_never_heard_of_is_missing_and_needs_no_stop(
    launcher: RayLauncher, client: FakeClient, run: Run
) -> None:
    assert launcher.status(run, 1) == LaunchStatus(Phase.MISSING)
    launcher.stop(run, 1)
    assert client.stopped == []
    launcher.launch(run, 1)
    launcher.stop(run, 1)
    assert client.stopped == [f"{run.id}-a1"]


def test_only_living_machines_count(launcher: RayLauncher) -> None:
    assert launcher.capacity() == Capacity((Node(2, 0), Node(8, 1)))


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], ""),
        (["", "  "], ""),
        (["ValueError: x", "INFO bye"], "ValueError: x"),
        (["a.b.CustomError: y", "During handling", "KeyError: 'z'"], "KeyError: 'z'"),
        (["Segmentation fault"], "Segmentation fault"),
    ],
)
def test_the_last_exception_of_a_log_is_its_last_word(lines: list[str], expected: str) -> None:
    assert last_words(lines) == expected


def test_an_older_package_is_refused_by_a_newer_coordinator_with_both_versions() -> None:
    with pytest.raises(CoordinatorError, match=f"999.10.0, newer than this {package_version()}"):
        refuse_older("999.10.0")
    refuse_older(package_version())
    refuse_older("0.0.0")
