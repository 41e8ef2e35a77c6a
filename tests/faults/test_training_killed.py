"""A rank, and then a driver, is killed in the middle of a training: the next attempt goes on from the checkpoint."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.torch import load_file

from cluster.processes import find_marked
from cluster.runs import Run, State
from cluster.stack_state import read_stack
from tests.jobs.tiny import make_tokenizer, write_pairs
from tests.live_stack import LiveStack, live_stack
from tests.waiting import wait_until

pytestmark = [pytest.mark.soak, pytest.mark.timeout(400)]

NUM_STEPS = 400
CHECKPOINT_STEPS = 20
TRAINING = {"batch_size": 4, "grad_accumulation": 1, "max_steps": NUM_STEPS, "checkpoint_steps": CHECKPOINT_STEPS}


@pytest.fixture(scope="module")
def stack() -> Iterator[LiveStack]:
    with live_stack(num_cpus=2) as running:
        yield running


def spec(folder: Path, **training: Any) -> dict[str, Any]:
    make_tokenizer(folder / "tokenizer")
    write_pairs(folder / "pairs.csv", 60)
    shape = {"hidden_size": 32, "layers": {"encoder": 2, "decoder": 2}, "ffn_size": 64, "attention_heads": 2}
    return {
        "kind": "finetune",
        "dataset": {
            "name": str(folder / "pairs.csv"),
            "source_column": "toxic",
            "target_column": "neutral",
            "max_length": 16,
        },
        "model": {"init": shape, "tokenizer": str(folder / "tokenizer")},
        "training": {**TRAINING, "log_steps": 1, **training},
        "retries": {"errors": 1, "lost_nodes": 1},
    }


def processes(stack: LiveStack, named: Callable[[psutil.Process], bool]) -> list[psutil.Process]:
    state = read_stack(stack.home)
    assert state is not None
    return [process for process in find_marked(state.stack_id) if named(process)]


def is_rank(process: psutil.Process) -> bool:
    return "RayTrainWorker" in " ".join(process.cmdline())


def is_driver(process: psutil.Process) -> bool:
    return "cluster.attempt" in process.cmdline()


def kill_in_the_middle(stack: LiveStack, run: Run, victim: Callable[[psutil.Process], bool]) -> int:
    """Kill one process once two checkpoints are there; the step of the newest one."""
    folder = stack.home / "storage" / "runs" / run.id / "checkpoints"
    wait_until(lambda: len(list(folder.glob("*/checkpoint.json"))) >= 2, 120, "two checkpoints are written")
    process = processes(stack, victim)[-1]
    os.kill(process.pid, signal.SIGKILL)
    return max(int(file.parent.name.split("-")[1]) for file in folder.glob("*/checkpoint.json"))


@pytest.mark.parametrize(("victim", "num_workers"), [(is_rank, 2), (is_driver, 1)], ids=["rank", "driver"])
def test_what_was_killed_goes_on_from_its_last_checkpoint(
    stack: LiveStack, tmp_path: Path, victim: Callable[[psutil.Process], bool], num_workers: int
) -> None:
    spec_file = stack.write_spec(spec(tmp_path, num_workers=num_workers))
    done = stack.distox("submit", str(spec_file), "--detach")
    assert done.returncode == 0, done.stderr
    run = stack.store.list(top_level=True, limit=1)[0]
    saved = kill_in_the_middle(stack, run, victim)
    wait_until(lambda: stack.store.get(run.id).state.is_terminal, 240, "the run ends")
    run = stack.store.get(run.id)
    assert (run.state, run.epoch) == (State.SUCCEEDED, 2), f"{run.reason}\n{stack.log_of(run)}"

    taken_up = re.search(r"taken up after (\d+) of", stack.log_of(run))
    assert taken_up is not None, stack.log_of(run)
    assert int(taken_up[1]) >= saved
    steps = [point.step for point in stack.store.points(run.id, "loss")]
    assert steps == sorted(set(steps)), "one series, of two attempts"
    assert (steps[0], steps[-1]) == (1, NUM_STEPS)
    # Live figures are sent once a second: those of the last one died with their process.
    unsent = set(range(1, NUM_STEPS + 1)) - set(steps)
    assert len(unsent) < 2 * CHECKPOINT_STEPS
    assert all(step <= int(taken_up[1]) for step in unsent)
    assert load_file(stack.artifact(run, "model") / "model.safetensors")
    checkpoints = stack.home / "storage" / "runs" / run.id / "checkpoints"
    # The driver removes them once the end is recorded.
    wait_until(lambda: not checkpoints.exists(), 30, "a finished run needs none")


def test_a_training_without_checkpoints_begins_anew(stack: LiveStack, tmp_path: Path) -> None:
    run, done = stack.submit(spec(tmp_path, checkpoint_steps=None, max_steps=5))
    assert done.returncode == 0, done.stderr
    assert run.epoch == 1
    assert not (stack.home / "storage" / "runs" / run.id / "checkpoints").exists()
