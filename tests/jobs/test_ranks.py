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
from tests.jobs.tiny import make_model_folder, make_tokenizer, write_pairs

REPOSITORY = Path(__file__).parent.parent.parent


def run_two_ranks(folder: Path, *options: str, timeout: float = 120) -> list[str]:
    """Run both to their end, with the environment that Ray Train gives its ranks; what they printed."""
    with contextlib.ExitStack() as stack:
        ranks = []
        for number in range(2):
            environment = {
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "RANK": str(number),
                "LOCAL_RANK": str(number),
                "WORLD_SIZE": "2",
                "LOCAL_WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": "1",
            }
            command = [sys.executable, "-m", "tests.jobs.rank_script", str(folder), "2", str(number), *options]
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
    assert [output.split()[-1] for output in run_two_ranks(folder)] == ["stopped", "stopped"]
    assert_equal_weights(folder, tolerance=1e-5)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("stage", ["zero2", "zero3"])
def test_sharded_ranks_end_in_the_weights_of_one(stage: str, folder: Path) -> None:
    rank_script.train(folder, 1, 0)
    run_two_ranks(folder, stage, timeout=600)
    assert_equal_weights(folder, tolerance=1e-4)


def test_alone_there_is_one_rank_and_sums_are_free() -> None:
    assert (rank(), world_size()) == (0, 1)
    values = torch.tensor([1.0, 2.0])
    assert sum_over_ranks(values) is values
    wait_for_ranks()
