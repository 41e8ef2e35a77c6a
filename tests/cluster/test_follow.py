"""What a follower sees."""

from __future__ import annotations

from cluster.follow import Line, LineKind, describe_progress, follow, format_line
from cluster.runs import State
from cluster.store import Store, StoreError
from tests.cluster import specs
from tests.cluster.conftest import Clock
from tests.cluster.fakes import fail
from tests.cluster.world import World


def watch(store: Store, run_id: str, world: World) -> list[Line]:
    """Follow while the world ticks: each poll is preceded by a tick."""
    lines: list[Line] = []

    class Ticking:
        def get(self, asked: str) -> object:
            world.tick()
            return store.get(asked)

        def list(self, **values: object) -> object:
            return store.list(**values)  # type: ignore[arg-type]

    follow(Ticking(), run_id, emit=lines.append, poll_seconds=0, progress_seconds=0)  # type: ignore[arg-type]
    return lines


def test_each_state_of_a_run_is_one_line_and_the_last_one_is_its_end(sqlite_store: Store, clock: Clock) -> None:
    world = World(sqlite_store, clock)
    run_id = world.submit(fail, fail)
    lines = watch(sqlite_store, run_id, world)
    assert [line.kind for line in lines] == [LineKind.STATE] * len(lines)
    assert lines[-1].state is State.FAILED
    assert lines[-1].text == "RuntimeError: boom"
    assert any(line.state is State.QUEUED and line.text == "RuntimeError: boom" for line in lines)
    assert len({(line.state, line.text) for line in lines}) == len(lines)


def test_steps_are_named_and_a_pipelines_end_comes_last(sqlite_store: Store, clock: Clock) -> None:
    world = World(sqlite_store, clock)
    parent = sqlite_store.submit(specs.pipeline(), owner="local")
    lines = watch(sqlite_store, parent.id, world)
    assert (lines[-1].step, lines[-1].state) == (None, State.SUCCEEDED)
    ends = [line.step for line in lines[:-1] if line.state is State.SUCCEEDED]
    assert sorted(str(step) for step in ends) == ["data", "other", "student", "teacher"]


def test_following_ends_when_asked_to(sqlite_store: Store) -> None:
    run = sqlite_store.submit(specs.prepare(), owner="local")
    lines: list[Line] = []
    assert follow(sqlite_store, run.id, emit=lines.append, should_stop=lambda: True).state is State.PENDING
    assert [line.state for line in lines] == [State.PENDING]


def test_a_store_that_is_away_for_a_moment_is_waited_for(sqlite_store: Store) -> None:
    run = sqlite_store.submit(specs.prepare(), owner="local")

    class Away:
        failures = 2

        def get(self, run_id: str) -> object:
            if self.failures:
                self.failures -= 1
                raise StoreError("away")
            return sqlite_store.get(run_id)

    seen = follow(Away(), run.id, emit=lambda line: None, should_stop=lambda: True, poll_seconds=0)  # type: ignore[arg-type]
    assert seen == run


def test_progress_is_said_in_a_few_words() -> None:
    assert describe_progress({"step": 120, "loss": 1.23456}) == "step 120  loss 1.235"
    assert describe_progress({"rows_done": 1200, "rows_total": 2000, "share_done": 0.6}) == "60 %  rows 1,200/2,000"
    assert describe_progress({"step": 1, "steps": 10, "loss": None, "eta_seconds": 9.6}) == "step 1/10  10 s left"
    assert describe_progress({}) == ""


def test_a_line_has_time_step_state_and_text() -> None:
    line = Line(LineKind.STATE, "r-1", "teacher", State.RUNNING, "", {}, 75.2)
    assert format_line(line) == "  1:15  teacher               RUNNING"
