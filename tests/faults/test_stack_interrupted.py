"""``distox quickstart`` interrupted at its various moments, killed, and called again."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from cluster.runs import Run, State
from cluster.store import Store
from tests.stack_home import TINY_SPEC, StackHome, Terminal, stack_home, training_spec
from tests.waiting import wait_until

END_SECONDS = 10.0
"""What is promised of Ctrl-C."""

pytestmark = [pytest.mark.soak, pytest.mark.timeout(300)]


@pytest.fixture
def home() -> Iterator[StackHome]:
    with stack_home() as made:
        made.write("tiny.yaml", TINY_SPEC)
        yield made


def quickstart(home: StackHome) -> Terminal:
    return home.start("quickstart", "--spec", "tiny.yaml", "--num-cpus", "1")


def runs(home: StackHome) -> list[Run]:
    store = Store.open(f"sqlite:///{home.home / 'store.sqlite'}")
    try:
        return store.list(top_level=True)
    finally:
        store.close()


def step(home: StackHome, run: Run, name: str) -> Run:
    store = Store.open(f"sqlite:///{home.home / 'store.sqlite'}")
    try:
        return next(item for item in store.list(parent=run.id) if item.step == name)
    finally:
        store.close()


def wait_for_end(terminal: Terminal) -> tuple[int, float]:
    """Exit code and how long it took from now."""
    began = time.monotonic()
    code = terminal.process.wait(timeout=60)
    return code, time.monotonic() - began


def ctrl_c(terminal: Terminal) -> None:
    terminal.press_ctrl_c()


def sigterm(terminal: Terminal) -> None:
    os.kill(terminal.process.pid, signal.SIGTERM)


@pytest.mark.parametrize(("interrupt", "moment"), [(ctrl_c, 1), (sigterm, 6), (ctrl_c, 18)])
def test_an_interrupt_while_the_stack_starts_ends_it_within_10_s_and_leaves_no_process(
    home: StackHome, interrupt: Callable[[Terminal], None], moment: int
) -> None:
    terminal = quickstart(home)
    wait_until(lambda: home.num_marked() >= moment, 120, f"{moment} processes of the stack live")
    interrupt(terminal)
    code, seconds = wait_for_end(terminal)
    assert home.processes() == []
    assert (code, home.stack()) == (130, None), terminal.output()
    assert seconds < END_SECONDS
    assert "Traceback" not in terminal.output()


def test_an_interrupt_while_a_model_is_trained_cancels_the_run_and_leaves_no_process(home: StackHome) -> None:
    spec = home.write("training.yaml", training_spec(max_steps=1_000_000)).name
    terminal = home.start("quickstart", "--spec", spec, "--num-cpus", "1")
    terminal.wait_for_output("teacher              running")

    second = home.distox("quickstart", "--spec", spec)
    assert second.returncode == 1, second.stdout
    assert f"(process {terminal.process.pid})" in second.stderr
    assert "DISTOX_HOME" in second.stderr

    terminal.press_ctrl_c()
    # Somebody in a hurry presses it again, while everything is being ended.
    wait_until(lambda: runs(home)[0].cancel_requested, 10, "the cancel is recorded")
    terminal.press_ctrl_c()
    code, seconds = wait_for_end(terminal)
    assert home.processes() == []
    assert (code, home.stack()) == (130, None), terminal.output()
    assert seconds < END_SECONDS
    assert "Traceback" not in terminal.output()


def test_an_interrupt_while_the_stack_ends_changes_nothing_but_the_exit_code(home: StackHome) -> None:
    terminal = quickstart(home)
    terminal.wait_for_output("distox down")
    before = home.num_marked()
    wait_until(lambda: home.num_marked() < before or terminal.process.poll() is not None, 30, "the stack ends")
    terminal.press_ctrl_c()
    code, seconds = wait_for_end(terminal)
    assert home.processes() == []
    assert (code, home.stack()) == (130, None), terminal.output()
    assert seconds < END_SECONDS
    assert [run.state for run in runs(home)] == [State.SUCCEEDED]


def test_a_quickstart_that_was_killed_is_taken_up_by_the_next_and_the_one_after_runs_anew(home: StackHome) -> None:
    spec = home.write("training.yaml", training_spec(max_steps=20)).name
    first = home.start("quickstart", "--spec", spec, "--num-cpus", "1")
    first.wait_for_output("data                 succeeded")
    first.process.kill()
    first.process.wait(timeout=10)
    assert home.num_marked() > 10, "a killed command can't end what it started"
    [interrupted] = runs(home)
    finished = step(home, interrupted, "data")

    second = home.distox("quickstart", "--spec", spec, "--num-cpus", "1")
    assert second.returncode == 0, second.stdout + second.stderr
    assert "processes of a stack that was not shut down" in second.stdout
    assert f"taking up {interrupted.id}" in second.stdout
    assert [(run.id, run.state) for run in runs(home)] == [(interrupted.id, State.SUCCEEDED)]
    assert step(home, interrupted, "data") == finished, "a finished step is not repeated"
    assert home.processes() == []

    third = home.distox("quickstart", "--spec", "tiny.yaml", "--num-cpus", "1")
    assert third.returncode == 0, third.stdout + third.stderr
    assert [run.state for run in runs(home)] == [State.SUCCEEDED, State.SUCCEEDED]
    assert home.processes() == []


def test_a_wrong_spec_is_refused_before_anything_starts(home: StackHome) -> None:
    home.write("wrong.yaml", TINY_SPEC.replace("num_pairs: 100", "num_pairs: many"))
    done = home.distox("quickstart", "--spec", "wrong.yaml", seconds=30)
    assert done.returncode == 2
    assert 'steps.data.sample.num_pairs = "many"' in done.stderr
    assert not home.home.exists()
