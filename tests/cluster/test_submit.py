"""The command that submits and follows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.reconciler import Reconciler
from cluster.runs import Cause, State
from cluster.store import Store
from tests.cluster.conftest import Clock
from tests.cluster.fakes import FakeCluster

SPEC = "kind: prepare\nname: tiny\ndataset: {name: sample}\n"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "spec.yaml").write_text(SPEC)
    Store.open(f"sqlite:///{tmp_path / 'store.sqlite'}", migrate=True).close()
    return tmp_path


def environment(home: Path, submission: str | None = "raysubmit_1", **values: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DISTOX_", "RAY_"))}
    given = {"DISTOX_HOME": str(home), "DISTOX_STORE_URL": f"sqlite:///{home / 'store.sqlite'}"}
    job = {"RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps({"metadata": {"job_submission_id": submission}})}
    # The head of the home's own stack, which has one machine.
    given["RAY_AUTH_TOKEN_PATH"] = str(home / "ray-token")
    return {**kept, **given, "DISTOX_STORAGE_URL": str(home / "storage"), **(job if submission else {}), **values}


def submit(home: Path, *arguments: str, **values: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cluster.submit", str(home / "spec.yaml"), *arguments]
    return subprocess.run(
        command, env=environment(home, **values), capture_output=True, text=True, check=False, timeout=60
    )


def test_a_wrong_spec_is_refused_with_its_faults_and_leaves_no_run(home: Path) -> None:
    (home / "spec.yaml").write_text("kind: prepare\ndataset: {name: sample}\npriorty: 3\n")
    done = submit(home)
    assert done.returncode == 2
    assert "priorty" in done.stderr
    assert "did you mean priority?" in done.stderr
    assert Store.open(f"sqlite:///{home / 'store.sqlite'}").list() == []


def test_a_missing_setting_inside_a_ray_job_is_named(home: Path) -> None:
    done = submit(home, DISTOX_STORE_URL="")
    assert (done.returncode, "DISTOX_STORE_URL not set" in done.stderr) == (2, True)


def test_another_store_than_the_expected_one_is_refused(home: Path) -> None:
    done = submit(home, DISTOX_STORE_ID="other")
    assert (done.returncode, "distox env" in done.stderr) == (2, True)


def test_no_store_is_answered_with_the_remedy(home: Path) -> None:
    done = submit(home, DISTOX_STORE_URL=f"sqlite:///{home / 'none.sqlite'}")
    assert (done.returncode, "distox up" in done.stderr) == (2, True)


def test_detached_it_returns_at_once_and_the_same_submission_is_the_same_run(home: Path) -> None:
    first, second = submit(home, "--detach", "--name", "mine"), submit(home, "--detach")
    assert (first.returncode, second.returncode) == (0, 0)
    store = Store.open(f"sqlite:///{home / 'store.sqlite'}")
    runs = store.list()
    assert [(run.name, run.submission_id, run.owner) for run in runs] == [("mine", "raysubmit_1", "local")]
    assert runs[0].id in first.stdout
    assert runs[0].id in second.stdout
    store.close()


def test_the_exit_code_is_the_runs_end(home: Path) -> None:
    store = Store.open(f"sqlite:///{home / 'store.sqlite'}")
    submit(home, "--detach")
    run = store.list()[0]
    store.enqueue(run.id)
    store.start(run.id, store.begin_attempt(run.id))
    store.end_attempt(run.id, 1, Cause.WRONG_INPUT, "ValueError: dump.csv: no such file")
    failed = submit(home)
    assert failed.returncode == 1
    assert f"{run.id} failed: ValueError: dump.csv: no such file" in failed.stderr
    assert f"ray job logs {run.id}-a1" in failed.stderr

    clock = Clock()
    cluster = FakeCluster(store)
    reconciler = Reconciler(store, cluster, now=clock.now, monotonic=clock.monotonic, chance=lambda: 0.0)
    submit(home, "--detach", submission="raysubmit_2")
    while store.unfinished():
        reconciler.tick()
        cluster.beat()
    succeeded = submit(home, submission="raysubmit_2")
    assert succeeded.returncode == 0
    assert "dataset: /out/" in succeeded.stdout

    submit(home, "--detach", submission="raysubmit_3")
    store.request_cancel(store.list()[0].id)
    assert submit(home, submission="raysubmit_3").returncode == 130
    store.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_cancels_the_run(home: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "cluster.submit", str(home / "spec.yaml")]
    with subprocess.Popen(command, env=environment(home), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "submitted prepare tiny as r-" in process.stdout.readline()
        process.send_signal(number)
        assert process.wait(timeout=20) == 128 + number
    store = Store.open(f"sqlite:///{home / 'store.sqlite'}")
    assert [run.state for run in store.list()] == [State.CANCELLED]
    store.close()


def test_relative_paths_mean_the_submitters_folder(home: Path) -> None:
    (home / "pairs.tsv").write_text("toxic\tneutral\n")
    (home / "spec.yaml").write_text("kind: prepare\ndataset: {name: pairs.tsv}\n")
    command = [sys.executable, "-m", "cluster.submit", "spec.yaml", "--detach"]
    path = os.pathsep.join(item for item in (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")) if item)
    done = subprocess.run(
        command, env=environment(home, PYTHONPATH=path), cwd=home, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    store = Store.open(f"sqlite:///{home / 'store.sqlite'}")
    assert store.list()[0].spec["dataset"]["name"] == str(home / "pairs.tsv")
    store.close()
