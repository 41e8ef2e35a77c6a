"""The ends of an attempt, and what is recorded of each."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.attempt import main, output_folder, record
from cluster.executors import merge
from cluster.remote import (
    Assignment,
    Outcome,
    describe,
    outcome_of,
    read_outcomes,
    run_job,
    write_outcome,
)
from cluster.runs import Cause, State
from cluster.store import Store, StoreError
from configs.load import SpecError, dump_spec
from jobs.context import JobContext, JobResult, JobStopped, Summary
from tests.cluster import specs

RESULT = JobResult({"dataset": "dataset"}, (Summary("rows", 3.0),))


def running(store: Store, **values: object) -> tuple[str, int]:
    run = store.enqueue(store.submit(specs.prepare(**values), owner="local").id)
    epoch = store.begin_attempt(run.id)
    store.start(run.id, epoch)
    return run.id, epoch


def test_outcomes_survive_the_way_through_json(tmp_path: Path) -> None:
    outcomes = [Outcome(result=RESULT), Outcome(stopped=True), Outcome(error="x", cause=Cause.WRONG_INPUT)]
    for rank, outcome in enumerate(outcomes):
        write_outcome(tmp_path, rank, outcome.as_dict())
    assert read_outcomes(tmp_path, 4) == outcomes


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (JobStopped(), Outcome(stopped=True)),
        (ValueError("field x: use y"), Outcome(error="ValueError: field x: use y", cause=Cause.WRONG_INPUT)),
        (SpecError([]), Outcome(error="SpecError: spec: 0 fault(s)", cause=Cause.WRONG_INPUT)),
        (RuntimeError("two\n lines"), Outcome(error="RuntimeError: two lines", cause=Cause.ERROR)),
        (MemoryError(), Outcome(error="MemoryError", cause=Cause.ERROR)),
    ],
)
def test_wrong_input_is_told_from_errors_that_may_pass(error: BaseException, expected: Outcome) -> None:
    assert outcome_of(error) == expected
    assert error.__class__.__name__ in describe(error)


def test_a_full_disk_is_told_with_its_remedy_once_whatever_library_wrote() -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    for error in (full, RuntimeError(f"serializing: {full.strerror} (os error 28)"), RuntimeError(describe(full))):
        assert describe(error).count("free some space") == 1
    assert "free some space" not in describe(OSError(errno.EACCES, os.strerror(errno.EACCES)))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_rank_whose_word_doesnt_fit_on_the_disk_leaves_no_half_of_it(tmp_path: Path) -> None:
    (tmp_path / "_outcome-0.tmp").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        write_outcome(tmp_path, 0, Outcome(stopped=True).as_dict())
    assert list(tmp_path.iterdir()) == []


def test_ranks_are_read_together() -> None:
    done, stopped = Outcome(result=RESULT), Outcome(stopped=True)
    wrong, broken = Outcome(error="wrong", cause=Cause.WRONG_INPUT), Outcome(error="broken")
    death = RuntimeError("connection reset")
    assert merge([done, Outcome(result=JobResult({}))], []) == done
    assert merge([broken, wrong], [death]) == wrong
    assert merge([stopped, broken], [death]) == broken
    assert merge([stopped, done], []) == stopped
    assert merge([done], [death]) == Outcome(error="RuntimeError: connection reset")
    assert merge([], []).error == "the training group ended and rank 0 left no result"


def test_a_dead_rank_is_named_in_a_few_words() -> None:
    class GroupError(Exception):
        worker_failures = {  # noqa: RUF012 (as upstream's)
            1: RuntimeError(
                "The actor is dead because its worker process has died. Worker exit detail: Worker unexpectedly exits. "
                "Some common causes include: (1) many"
            )
        }

    assert merge([], [GroupError()]).error == (
        "rank 1 died: its process was killed, ran out of memory, or crashed (Worker unexpectedly exits.)"
    )


def test_a_rank_that_died_with_its_node_counts_as_lost() -> None:
    import ray

    class GroupError(Exception):
        def __init__(self, death: Exception) -> None:
            self.worker_failures = {0: death}

    gone = RuntimeError("The actor died because its node has died. Node Id: 12")
    assert merge([], [GroupError(gone)]).cause is Cause.LOST
    died: Exception = ray.exceptions.NodeDiedError("gone")  # type: ignore[no-untyped-call]
    assert merge([], [GroupError(died)]).cause is Cause.LOST
    assert merge([], [GroupError(RuntimeError("out of memory"))]).cause is Cause.ERROR


def test_success_stop_and_failure_are_recorded(sqlite_store: Store, tmp_path: Path) -> None:
    store = sqlite_store
    run_id, epoch = running(store)
    assert record(store, run_id, epoch, Outcome(result=RESULT), tmp_path) == 0
    run = store.get(run_id)
    assert (run.state, run.output) == (State.SUCCEEDED, str(tmp_path))
    assert store.summaries(run_id) == list(RESULT.summaries)

    run_id, epoch = running(store)
    store.request_cancel(run_id)
    assert record(store, run_id, epoch, Outcome(stopped=True), tmp_path) == 0
    assert store.get(run_id).state is State.CANCELLED

    run_id, epoch = running(store)
    assert record(store, run_id, epoch, Outcome(stopped=True), tmp_path) == 0
    assert (store.get(run_id).state, store.get(run_id).lost) == (State.QUEUED, 1)

    run_id, epoch = running(store)
    assert record(store, run_id, epoch, Outcome(error="ValueError: x", cause=Cause.WRONG_INPUT), tmp_path) == 1
    assert (store.get(run_id).state, store.get(run_id).reason) == (State.FAILED, "ValueError: x")


def test_a_stale_attempt_records_nothing_and_says_so_with_its_exit_code(sqlite_store: Store, tmp_path: Path) -> None:
    run_id, epoch = running(sqlite_store)
    sqlite_store.end_attempt(run_id, epoch, Cause.LOST, "gone")
    assert record(sqlite_store, run_id, epoch, Outcome(result=RESULT), tmp_path) == 1
    assert sqlite_store.get(run_id).state is State.QUEUED


def test_a_store_that_is_away_is_waited_for(sqlite_store: Store, tmp_path: Path) -> None:
    run_id, epoch = running(sqlite_store)

    class Away:
        failures = 1

        def finish(self, *args: object, **kwargs: object) -> None:
            if self.failures:
                self.failures -= 1
                raise StoreError("away")
            sqlite_store.finish(*args, **kwargs)  # type: ignore[arg-type]

    assert record(Away(), run_id, epoch, Outcome(result=RESULT), tmp_path, retry_seconds=0.0) == 0  # type: ignore[arg-type]
    assert sqlite_store.get(run_id).state is State.SUCCEEDED


def test_attempts_have_folders_of_their_own_but_the_parts_of_a_dump_are_shared(sqlite_store: Store) -> None:
    plain = sqlite_store.submit(specs.prepare(), owner="local")
    assert output_folder("/storage", plain, 2) == Path(f"/storage/runs/{plain.id}/a2")
    given = sqlite_store.submit(specs.prepare(output="/mine"), owner="local")
    assert output_folder("/storage", given, 1) == Path(f"/mine/{given.id}/a1")
    dump = sqlite_store.submit(specs.detoxify(), owner="local")
    assert output_folder("/storage", dump, 1) == output_folder("/storage", dump, 2)


@pytest.mark.parametrize(("storage", "words"), [("s3://bucket/x", "is a URL"), ("relative/x", "is relative")])
def test_a_storage_that_is_no_absolute_folder_is_refused_with_the_remedy(
    sqlite_store: Store, storage: str, words: str
) -> None:
    run = sqlite_store.submit(specs.prepare(), owner="local")
    with pytest.raises(ValueError, match=words):
        output_folder(storage, run, 1)


def test_a_job_runs_under_its_epoch_and_its_error_is_an_outcome(
    sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id, epoch = running(sqlite_store)
    url = f"sqlite:///{tmp_path / 'store.sqlite'}"
    spec = dump_spec(specs.prepare())
    assignment = Assignment(run_id, epoch, url, sqlite_store.store_id, spec, str(tmp_path), 1)

    def job(given: object, context: JobContext) -> JobResult:
        assert (context.output, context.num_threads, os.environ["OMP_NUM_THREADS"]) == (tmp_path, 1, "1")
        context.report({"rows": 3.0}, 1)
        return RESULT

    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setattr("jobs.prepare.run", job)
    assert Outcome.from_dict(run_job(assignment)) == Outcome(result=RESULT)
    assert [point.name for point in sqlite_store.points(run_id)] == ["rows"]

    def broken(given: object, context: JobContext) -> JobResult:
        raise FileNotFoundError("no such file: dump.csv")

    monkeypatch.setattr("jobs.prepare.run", broken)
    outcome = Outcome.from_dict(run_job(assignment))
    assert outcome == Outcome(error="FileNotFoundError: no such file: dump.csv", cause=Cause.ERROR)


def environment(tmp_path: Path, **values: str) -> dict[str, str]:
    given = {"DISTOX_HOME": str(tmp_path), "DISTOX_STORE_URL": f"sqlite:///{tmp_path / 'store.sqlite'}"}
    return {**os.environ, **given, "DISTOX_STORAGE_URL": str(tmp_path / "storage"), **values}


@pytest.mark.parametrize("arguments", [[], ["r-1"], ["r-1", "x"]])
def test_a_wrong_command_line_can_not_begin(arguments: list[str]) -> None:
    assert main(arguments) == 2


def test_a_driver_of_another_store_changes_nothing(sqlite_store: Store, tmp_path: Path) -> None:
    run = sqlite_store.enqueue(sqlite_store.submit(specs.prepare(), owner="local").id)
    epoch = sqlite_store.begin_attempt(run.id)
    command = [sys.executable, "-m", "cluster.attempt", run.id, str(epoch)]
    values = environment(tmp_path, DISTOX_STORE_ID="another")
    done = subprocess.run(command, env=values, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "another store was put in its place" in done.stderr
    assert sqlite_store.get(run.id).state is State.STARTING


DRIVER = """
import sys, threading
import cluster.attempt as attempt
def execute(settings, store, run, epoch, output, pulse):
    print("ready", flush=True)
    while not (HEEDS and pulse.should_stop()):
        threading.Event().wait(0.02)
    from jobs.context import JobStopped
    raise JobStopped
attempt._execute = execute
attempt.TERM_SECONDS = 0.2
sys.exit(attempt.main(sys.argv[1:]))
"""


@pytest.mark.parametrize(("heeds", "code"), [(True, 0), (False, 128 + signal.SIGTERM)])
def test_sigterm_ends_a_driver_in_time_and_its_end_is_recorded(
    sqlite_store: Store, tmp_path: Path, heeds: bool, code: int
) -> None:
    run = sqlite_store.enqueue(sqlite_store.submit(specs.prepare(), owner="local").id)
    epoch = sqlite_store.begin_attempt(run.id)
    command = [sys.executable, "-c", DRIVER.replace("HEEDS", str(heeds)), run.id, str(epoch)]
    with subprocess.Popen(command, env=environment(tmp_path), stdout=subprocess.PIPE) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == b"ready\n"
        driver.send_signal(signal.SIGTERM)
        assert driver.wait(timeout=20) == code
    ended = sqlite_store.get(run.id)
    assert (ended.state, ended.lost) == (State.QUEUED, 1)
