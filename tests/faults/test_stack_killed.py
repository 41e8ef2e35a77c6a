"""``distox up`` killed at its various moments, beside another stack that must not notice."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from cluster.processes import end_marked, find_marked, spawn
from tests.stack_home import StackHome, stack_home
from tests.waiting import wait_until

pytestmark = [pytest.mark.soak, pytest.mark.timeout(300)]


@pytest.fixture
def home() -> Iterator[StackHome]:
    with stack_home() as made:
        yield made


@pytest.fixture
def bystander() -> Iterator[str]:
    """The mark of another stack, whose one process lives as long as it is let."""
    with stack_home() as other:
        mark = "of-another-stack"
        child = spawn(["sleep", "600"], stack_id=mark, environment=other.environment, log=other.folder / "log")
        yield mark
        end_marked(mark, grace_seconds=0)
        child.wait(timeout=10)


@pytest.mark.parametrize(("moment", "remedy"), [(0, "down"), (1, "down"), (8, "down"), (20, "up")])
def test_an_up_that_was_killed_is_cleaned_up_by_the_next_command_and_nothing_else_is_touched(
    home: StackHome, bystander: str, moment: int, remedy: str
) -> None:
    terminal = home.start("up", "--num-cpus", "1")
    wait_until(lambda: home.stack() is not None and home.num_marked() >= moment, 120, f"{moment} processes live")
    terminal.process.kill()
    terminal.process.wait(timeout=10)
    first = home.stack()
    assert first is not None, "the file names the stack before its first process exists"

    done = home.distox(remedy, *(["--num-cpus", "1"] if remedy == "up" else []))
    assert done.returncode == 0, done.stdout + done.stderr
    assert find_marked(first.stack_id) == []
    if remedy == "up":
        assert "processes of a stack that was not shut down" in done.stdout
        assert home.distox("status").returncode == 0
        assert home.distox("list").returncode == 0
        assert home.distox("down").returncode == 0
    assert (home.stack(), home.processes()) == (None, [])
    assert len(find_marked(bystander)) == 1


def test_a_stack_file_that_was_cut_is_never_seen(home: StackHome) -> None:
    """It is replaced whole: a command that is killed while it writes leaves the former one, or none."""
    home.home.mkdir()
    (home.home / "stack.json.tmp").write_text(json.dumps({"stack_id": "cut"})[:-3])
    assert home.distox("status").returncode == 3
    assert home.distox("down").returncode == 0
