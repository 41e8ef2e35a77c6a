"""The kernel's build: one at a time, and never waiting for a builder that is dead."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.kernel_build import LOCK, SETTLED_SECONDS, BuildBlocked, KernelError, build_alone
from jobs.sharding import CONFIG_FOLDER
from tests.waiting import wait_until

HOLDER = "import os, sys; os.open(sys.argv[1], os.O_CREAT | os.O_EXCL); print('held', flush=True); sys.stdin.read()"
"""What torch does: the lock file is made, and open until the build is over."""


def make_old(lock: Path) -> None:
    before = lock.stat().st_mtime - 2 * SETTLED_SECONDS
    os.utime(lock, (before, before))


@pytest.fixture
def builder(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds the lock."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / LOCK)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        make_old(tmp_path / LOCK)
        yield process
        process.kill()


def test_the_lock_of_a_killed_builder_is_removed_and_the_build_goes_on(
    builder: subprocess.Popen[bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    builder.kill()
    builder.wait()
    assert (tmp_path / LOCK).exists()
    seen: list[bool] = []
    with caplog.at_level(logging.WARNING):
        build_alone(tmp_path, lambda: seen.append((tmp_path / LOCK).exists()))
    assert seen == [False]
    assert "left by a build that was killed" in caplog.text


def test_the_lock_of_a_living_builder_is_waited_for(builder: subprocess.Popen[bytes], tmp_path: Path) -> None:
    built: list[bool] = []
    with pytest.raises(BuildBlocked, match="another build"):
        build_alone(tmp_path, lambda: built.append(True), wait_seconds=0.3)
    assert (built, (tmp_path / LOCK).exists()) == ([], True)
    (tmp_path / LOCK).unlink()
    build_alone(tmp_path, lambda: built.append(True))
    assert built == [True]


def test_a_lock_that_was_just_made_is_not_judged_yet(tmp_path: Path) -> None:
    (tmp_path / LOCK).touch()
    with pytest.raises(BuildBlocked):
        build_alone(tmp_path, lambda: None, wait_seconds=0.2)
    assert (tmp_path / LOCK).exists()


def test_one_builds_at_a_time(tmp_path: Path) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def build() -> None:
        inside.set()
        go_on.wait(20)

    first = threading.Thread(target=build_alone, args=(tmp_path, build))
    first.start()
    assert inside.wait(20)
    with pytest.raises(BuildBlocked):
        build_alone(tmp_path, lambda: None, wait_seconds=0.2)
    go_on.set()
    first.join(20)
    build_alone(tmp_path, lambda: None, wait_seconds=0.2)
    assert not first.is_alive()


def test_a_compiler_that_fails_is_told_with_the_way_out(tmp_path: Path) -> None:
    def build() -> None:
        raise RuntimeError("Error building extension 'deepspeed_shm_comm': a page of compiler output")

    with pytest.raises(KernelError, match=r"can't build its communication kernel .* or remove training\.deepspeed"):
        build_alone(tmp_path, build)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_after_a_build_was_killed_the_next_one_finishes(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from jobs.kernel_build import build_kernel; build_kernel()"]
    environment = {**os.environ, "TORCH_EXTENSIONS_DIR": str(tmp_path)}
    root = CONFIG_FOLDER.parent.parent
    with (tmp_path / "log").open("wb") as log:
        first = subprocess.Popen(command, env=environment, cwd=root, stdout=log, stderr=log, start_new_session=True)
        wait_until(lambda: bool(list(tmp_path.glob(f"*/{LOCK}"))) or first.poll() is not None, 120, "a build begins")
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    assert list(tmp_path.glob(f"*/{LOCK}")), (tmp_path / "log").read_text()
    assert not list(tmp_path.glob("*/*.so"))
    subprocess.run(command, env=environment, cwd=root, check=True, timeout=450)
    assert list(tmp_path.glob("*/*.so"))
    assert not list(tmp_path.glob(f"*/{LOCK}"))
