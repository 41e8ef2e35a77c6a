"""Two real ranks over gloo: the same step as one rank, and one rank's stop ends both."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from jobs.ranks import rank, sum_over_ranks, wait_for_ranks, world_size
from tests.jobs import rank_script
from tests.jobs.resume_script import STOP_AFTER
from tests.jobs.tiny import make_model_folder, make_tokenizer, write_pairs

NUM_STEPS = 12
"""Of resume_script: three of copying and nine on pairs."""
REPOSITORY = Path(__file__).parent.parent.parent


def run_ranks(
    folder: Path, *options: str, world: int = 2, script: str = "rank_script", timeout: float = 120
) -> list[str]:
    """Run all to their end, with the environment that Ray Train gives its ranks; what they printed."""
    with contextlib.ExitStack() as stack:
        ranks = []
        for number in range(world):
            environment = {
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "RANK": str(number),
                "LOCAL_RANK": str(number),
                "WORLD_SIZE": str(world),
                "LOCAL_WORLD_SIZE": str(world),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": "1",
            }
            command = [sys.executable, "-m", f"tests.jobs.{script}", str(folder), str(world), str(number), *options]
            process = stack.enter_context(
                subprocess.Popen(
                    command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
                )
            )
            stack.callback(process.kill)
            ranks.append(process)
        outputs = []
        for process in ranks:
            out, error = process.communicate(timeout=timeout)
            assert process.returncode == 0, error[-3000:]
            outputs.append(out)
    return outputs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tokenizer, a teacher, and pairs whose epoch ends with a small step."""
    tokenizer = make_tokenizer(tmp_path / "tokenizer")
    make_model_folder(tmp_path / "teacher", tokenizer, hidden_size=24)
    write_pairs(tmp_path / "pairs.csv", 40)
    return tmp_path


def assert_equal_weights(folder: Path, *, tolerance: float) -> None:
    one, two = (load_file(folder / name / "model" / "model.safetensors") for name in ("world1", "world2"))
    assert set(one) == set(two)
    for key, weight in one.items():
        torch.testing.assert_close(two[key], weight, rtol=10 * tolerance, atol=tolerance, msg=key)


def test_two_ranks_end_in_the_weights_of_one_and_stop_together(folder: Path) -> None:
    rank_script.train(folder, 1, 0)
    assert [output.split()[-1] for output in run_ranks(folder)] == ["stopped", "stopped"]
    assert_equal_weights(folder, tolerance=1e-5)


def resume(folder: Path, deepspeed: str, *, world: int) -> list[str]:
    """Train whole on two ranks; then stop a training on two, and take it up on ``world``; the weights that differ."""

    def run(part: str, num_ranks: int) -> list[str]:
        return run_ranks(folder, part, deepspeed, world=num_ranks, script="resume_script", timeout=600)[0].split()

    run("whole", 2)
    assert run("first", 2)[-1] == "stopped"
    made_again = NUM_STEPS - STOP_AFTER // 2 * 2
    assert int(run("second", world)[-1]) == made_again, "only the steps since the checkpoint are made again"
    whole = load_file(folder / "whole2" / "model" / "model.safetensors")
    found = load_file(folder / f"second{world}" / "model" / "model.safetensors")
    assert found.keys() == whole.keys()
    return [key for key in whole if not torch.allclose(found[key], whole[key], rtol=1e-4, atol=1e-5)]


def test_ranks_are_taken_up_where_they_were(folder: Path) -> None:
    assert resume(folder, "none", world=2) == []


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("stage", "world"),
    [
        ("none", 1),
        ("zero1", 2),
        ("zero2", 1),
        ("zero3", 2),
        ("zero3", 1),
        ("zero2_offload", 1),
    ],
)
def test_sharded_ranks_are_taken_up_also_by_another_number_of_them(stage: str, world: int, folder: Path) -> None:
    assert resume(folder, stage, world=world) == []


def test_alone_there_is_one_rank_and_sums_are_free() -> None:
    assert (rank(), world_size()) == (0, 1)
    values = torch.tensor([1.0, 2.0])
    assert sum_over_ranks(values) is values
    wait_for_ranks()
