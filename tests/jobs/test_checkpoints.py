"""Checkpoint files: whole or not there, newest first, two kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jobs.checkpoints import MANIFEST, commit, folder_of, newest, prune, write_share


def write(root: Path, step: int, *, epoch: int = 1, num_ranks: int = 2) -> Path:
    folder = folder_of(root, step, epoch)
    for rank in range(num_ranks):
        write_share(folder, rank, {f"weight/{rank}": torch.full((2, 3), float(step + rank))})
    commit(folder, step=step, state={"note": step}, num_ranks=num_ranks)
    return folder


def test_what_all_ranks_wrote_comes_back_together(tmp_path: Path) -> None:
    folder = write(tmp_path, 7)
    found = newest(tmp_path)
    assert found is not None
    assert (found.folder, found.step, found.state) == (folder, 7, {"note": 7})
    tensors = found.read()
    assert sorted(tensors) == ["weight/0", "weight/1"]
    assert torch.equal(tensors["weight/1"], torch.full((2, 3), 8.0))


def test_no_value_is_written_twice(tmp_path: Path) -> None:
    files = sorted(file.stat().st_size for file in write(tmp_path, 1).glob("*.safetensors"))
    assert len(files) == 2
    assert sum(files) < 2 * 200, "two tensors of 24 bytes and two headers"


def test_without_a_checkpoint_there_is_none(tmp_path: Path) -> None:
    assert newest(tmp_path) is None
    assert newest(tmp_path / "nowhere") is None


def test_a_checkpoint_that_was_not_committed_is_never_read(tmp_path: Path) -> None:
    write(tmp_path, 5)
    write_share(folder_of(tmp_path, 9, 1), 0, {"weight/0": torch.zeros(1)})
    found = newest(tmp_path)
    assert found is not None
    assert found.step == 5


@pytest.mark.parametrize("damage", ["shorter", "other bytes", "missing", "manifest"])
def test_a_damaged_checkpoint_is_passed_over_for_an_older_one(tmp_path: Path, damage: str) -> None:
    write(tmp_path, 5)
    folder = write(tmp_path, 9)
    file = folder / "rank-1.safetensors"
    content = file.read_bytes()
    match damage:
        case "shorter":
            file.write_bytes(content[:-1])
        case "other bytes":
            file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        case "missing":
            file.unlink()
        case _:
            (folder / MANIFEST).write_text("{", "utf-8")
    found = newest(tmp_path)
    assert found is not None
    assert found.step == 5


def test_the_newest_are_kept_and_the_half_written_older_ones_go(tmp_path: Path) -> None:
    write_share(folder_of(tmp_path, 2, 1), 0, {"weight/0": torch.zeros(1)})
    for step in (1, 3, 5):
        write(tmp_path, step)
    write_share(folder_of(tmp_path, 7, 1), 0, {"weight/0": torch.zeros(1)})
    prune(tmp_path, keep=2)
    assert sorted(folder.name for folder in tmp_path.iterdir()) == [
        "step-00000003-a1",
        "step-00000005-a1",
        "step-00000007-a1",
    ]


def test_two_attempts_at_one_step_do_not_share_a_folder(tmp_path: Path) -> None:
    write(tmp_path, 4, epoch=1)
    later = write(tmp_path, 4, epoch=2)
    found = newest(tmp_path)
    assert found is not None
    assert found.folder == later


def test_a_later_attempts_checkpoint_counts_though_it_has_made_fewer_steps(tmp_path: Path) -> None:
    """With other steps, as after a change of ranks, numbers of steps can't be compared."""
    write(tmp_path, 450, epoch=1)
    write(tmp_path, 250, epoch=2)
    prune(tmp_path, keep=1)
    found = newest(tmp_path)
    assert found is not None
    assert found.folder == folder_of(tmp_path, 250, 2)
    assert [folder.name for folder in tmp_path.iterdir()] == ["step-00000250-a2"]


def test_an_older_attempt_that_still_lives_deletes_nothing_of_its_successor(tmp_path: Path) -> None:
    write(tmp_path, 250, epoch=2)
    write_share(folder_of(tmp_path, 300, 2), 0, {"weight/0": torch.zeros(1)})
    write(tmp_path, 500, epoch=1)
    prune(tmp_path, keep=2)
    assert {folder.name for folder in tmp_path.iterdir()} >= {"step-00000250-a2", "step-00000300-a2"}


def test_a_step_that_is_saved_again_is_no_checkpoint_until_it_is_whole(tmp_path: Path) -> None:
    write(tmp_path, 5)
    write(tmp_path, 9)
    write_share(folder_of(tmp_path, 9, 1), 0, {"weight/0": torch.zeros(1)})
    found = newest(tmp_path)
    assert found is not None
    assert found.step == 5
