"""A training that is taken up ends exactly where an uninterrupted one does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from configs.schema.kinds import Distill
from jobs import checkpoints, distill
from jobs.context import JobStopped
from tests.jobs.test_distill import make_spec
from tests.jobs.tiny import Recorder, make_model_folder, make_tokenizer, tiny_source, write_pairs

NUM_STEPS = 14
PLAN: dict[str, Any] = {
    "precision": "fp32",
    "batch_size": 4,
    "max_steps": NUM_STEPS - 4,
    "copy_warmup": {"steps": 4, "batch_size": 4},
    "dropout": 0.1,
    "warmup_steps": 2,
    "checkpoint_steps": 3,
    "eval_steps": 4,
    "log_steps": 1,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("material")
    tokenizer = make_tokenizer(folder / "tokenizer")
    make_model_folder(folder / "teacher", tokenizer, hidden_size=24)
    write_pairs(folder / "pairs.csv", 40)
    return folder


def spec(folder: Path, **changes: Any) -> Distill:
    student = tiny_source(folder / "tokenizer")
    return make_spec(folder / "pairs.csv", folder / "teacher", student, **{**PLAN, **changes})


def weights(output: Path) -> dict[str, torch.Tensor]:
    return load_file(output / "model" / "model.safetensors")


def stop_and_take_up(folder: Path, tmp_path: Path, *, stop_after: int, **changes: Any) -> Recorder:
    """Stop one attempt after some reports and let another go on; what the second reported."""
    kept = tmp_path / "checkpoints"
    with pytest.raises(JobStopped):
        distill.run(spec(folder), Recorder(stop_after=stop_after).context(tmp_path / "a1", checkpoints=kept))
    second = Recorder()
    distill.run(spec(folder, **changes), second.context(tmp_path / "a2", checkpoints=kept, epoch=2))
    return second


@pytest.mark.parametrize("stop_after", [2, 8, 13])
def test_a_training_taken_up_ends_in_the_weights_of_an_uninterrupted_one(
    folder: Path, tmp_path: Path, stop_after: int
) -> None:
    whole = Recorder()
    distill.run(spec(folder), whole.context(tmp_path / "whole"))
    second = stop_and_take_up(folder, tmp_path, stop_after=stop_after)
    expected, found = weights(tmp_path / "whole"), weights(tmp_path / "a2")
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())
    for name in ("loss", "lr", "validation_loss"):
        steps = second.steps(name)
        assert second.values(name) == whole.values(name)[len(whole.steps(name)) - len(steps) :]
    assert len(second.steps("loss")) + len(second.steps("copy_loss")) < NUM_STEPS or stop_after == 2


def test_a_checkpoint_holds_the_evaluation_of_its_own_step(folder: Path, tmp_path: Path) -> None:
    same = {"copy_warmup": None, "checkpoint_steps": 4, "eval_steps": 4, "max_steps": NUM_STEPS}
    kept = tmp_path / "checkpoints"
    with pytest.raises(JobStopped):
        distill.run(spec(folder, **same), Recorder(stop_after=12).context(tmp_path / "a1", checkpoints=kept))
    found = checkpoints.newest(kept)
    assert found is not None
    assert list(found.state["evaluations"]) == [str(step) for step in range(4, found.step + 1, 4)]


def test_only_the_newest_checkpoints_are_kept(folder: Path, tmp_path: Path) -> None:
    kept = tmp_path / "checkpoints"
    distill.run(spec(folder, keep_checkpoints=2), Recorder().context(tmp_path / "out", checkpoints=kept))
    assert sorted(item.name for item in kept.iterdir()) == ["step-00000009-a1", "step-00000012-a1"]


def test_a_damaged_checkpoint_costs_steps_and_not_the_result(folder: Path, tmp_path: Path) -> None:
    distill.run(spec(folder), Recorder().context(tmp_path / "whole"))
    kept = tmp_path / "checkpoints"
    with pytest.raises(JobStopped):
        distill.run(spec(folder), Recorder(stop_after=9).context(tmp_path / "a1", checkpoints=kept))
    newest = checkpoints.newest(kept)
    assert newest is not None
    (newest.folder / "rank-0.safetensors").write_bytes(b"\0" * 100)
    distill.run(spec(folder), Recorder().context(tmp_path / "a2", checkpoints=kept, epoch=2))
    expected, found = weights(tmp_path / "whole"), weights(tmp_path / "a2")
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


def test_with_steps_of_another_size_it_goes_on_at_the_same_share_of_its_way(folder: Path, tmp_path: Path) -> None:
    second = stop_and_take_up(folder, tmp_path, stop_after=13, batch_size=2, max_steps=2 * (NUM_STEPS - 4))
    # The checkpoint of step 12 is 8 of 10 steps on pairs: of 20 half as large, 16 are done.
    assert second.steps("loss") == [17, 18, 19, 20]


def test_without_a_folder_nothing_is_kept(folder: Path, tmp_path: Path) -> None:
    distill.run(spec(folder), Recorder().context(tmp_path / "out"))
    assert [item.name for item in (tmp_path / "out").iterdir()] == ["model"]
