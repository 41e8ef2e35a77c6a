"""Teacher states on disk: what was written comes back, mapped; what is not whole is never read."""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from jobs.teacher_cache import LEFT_BEHIND_SECONDS, SUFFIX, StateCache, StatesLost

REPOSITORY = Path(__file__).parents[2]


def name(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def states(*numbers: int) -> dict[bytes, torch.Tensor]:
    """Of row n: n + 1 positions, all of them n."""
    return {name(number): torch.full((number + 1, 4), float(number), dtype=torch.float16) for number in numbers}


def opened(folder: Path, *numbers: int) -> StateCache:
    cache = StateCache(folder)
    cache.open(cache.find({name(number) for number in numbers}))
    return cache


def test_rows_of_several_files_come_back_as_they_were(tmp_path: Path) -> None:
    cache = StateCache(tmp_path / "teacher")
    cache.add(states(0, 2))
    cache.add(states(1))
    cache.add({})
    found = opened(tmp_path / "teacher", 0, 1, 2, 3)
    for number in (0, 1, 2):
        assert torch.equal(found[name(number)], states(number)[name(number)])
    assert name(3) not in found
    assert len(list((tmp_path / "teacher").iterdir())) == 2


def test_states_are_mapped_and_not_read(tmp_path: Path) -> None:
    StateCache(tmp_path).add(states(0))
    cache = opened(tmp_path, 0)
    address = cache[name(0)].data_ptr()
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if str(tmp_path) in line]
    ranges = [[int(end, 16) for end in line[0].split("-")] for line in maps]
    assert any(start <= address < end for start, end in ranges)


def test_a_file_without_a_wanted_row_is_left_alone(tmp_path: Path) -> None:
    cache = StateCache(tmp_path)
    cache.add(states(0))
    cache.add(states(1))
    assert len(cache.find({name(1), name(7)})) == 1
    assert cache.find({name(7)}) == []
    assert cache.find(set()) == []


def test_rows_that_two_runs_have_made_are_taken_once(tmp_path: Path) -> None:
    StateCache(tmp_path).add(states(0, 1))
    StateCache(tmp_path).add(states(1, 0))
    assert len(list(tmp_path.iterdir())) == 2
    assert len(StateCache(tmp_path).find({name(0), name(1)})) == 1


@pytest.mark.parametrize("damage", ["shorter", "empty", "other state", "other header", "other hash"])
def test_a_damaged_file_is_never_read_and_its_rows_can_be_made_again(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    StateCache(tmp_path).add(states(5))
    file = next(tmp_path.glob(f"*{SUFFIX}"))
    content = bytearray(file.read_bytes())
    match damage:
        case "shorter":
            del content[-1:]
        case "empty":
            content.clear()
        case "other state":
            place = content.index(bytes(states(5)[name(5)].numpy().tobytes()))
            content[place] ^= 1
        case "other header":
            content[3] ^= 1
        case _:
            place = content.index(name(5))
            content[place] ^= 1
    file.write_bytes(content)
    cache = StateCache(tmp_path)
    # The changed hash is the name of a row that somebody may want.
    wanted = {name(5), bytes([name(5)[0] ^ 1]) + name(5)[1:]}
    with caplog.at_level(logging.WARNING):
        assert cache.find(wanted) == []
    assert "its rows are made again" in caplog.text
    cache.add(states(5))
    cache.open(cache.find({name(5)}))
    assert torch.equal(cache[name(5)], states(5)[name(5)])


WRITER = """
import sys
from pathlib import Path
from safetensors import torch as files
import jobs.teacher_cache as cache
from tests.jobs.test_teacher_cache import states
def sync(path):
    print("written", flush=True)
    sys.stdin.read()
cache.sync = sync
cache.StateCache(Path(sys.argv[1])).add(states(0))
"""


def test_a_writer_that_was_killed_leaves_nothing_that_is_read(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"written\n"
        writer.send_signal(signal.SIGKILL)
    left = list(tmp_path.iterdir())
    assert [file.suffix for file in left] == [".tmp"]
    cache = StateCache(tmp_path)
    assert cache.find({name(0)}) == []
    cache.add(states(0))
    assert left[0].exists(), "another writer may be at work on it"
    before = left[0].stat().st_mtime - 2 * LEFT_BEHIND_SECONDS
    os.utime(left[0], (before, before))
    cache.add(states(1))
    assert not left[0].exists()
    assert len(cache.find({name(0), name(1)})) == 2


def test_states_that_another_node_wrote_into_a_folder_of_its_own_are_told_missing(tmp_path: Path) -> None:
    StateCache(tmp_path / "there").add(states(0))
    names = StateCache(tmp_path / "there").find({name(0)})
    here = StateCache(tmp_path / "here")
    with pytest.raises(StatesLost, match=r"missing in .*/here; give all nodes one shared folder"):
        here.open(names)
    with pytest.raises(StatesLost, match="states are missing"):
        here[name(0)]


def test_a_disk_that_is_full_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jobs.teacher_cache.save_file", fail)
    with pytest.raises(OSError, match="No space left"):
        StateCache(tmp_path).add(states(0))
    assert list(tmp_path.iterdir()) == []
