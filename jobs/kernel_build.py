"""Builds DeepSpeed's communication kernel before training, one process of a machine at a time.

Guarantee: the lock file of a build that was killed is found and removed. Torch takes any lock file for a living build
and waits for its end without a limit. Knows nothing about training.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from torch.utils import cpp_extension

logger = logging.getLogger(__name__)

LOCK = "lock"
"""Torch's own name: exists while a build runs, and is held open by the process that made it."""
OUR_LOCK = "distox.lock"
SETTLED_SECONDS = 3.0
"""A lock file is judged once it is this old: its maker opens it in the same moment."""
BUILD_SECONDS = 900.0
"""Longer than a build takes on a slow machine."""
POLL_SECONDS = 0.1


class KernelError(ValueError):
    """The compiler can't build the kernel; the message says what to do."""


class BuildBlocked(RuntimeError):  # noqa: N818 (a state of things, which may pass)
    """Somebody else has been building for too long."""


def build_kernel() -> None:
    """Build the kernel that DeepSpeed would build at its start, or do nothing where it is built, or none is needed.

    Raises:
        KernelError: the compiler fails.
        BuildBlocked: another process builds for more than ``BUILD_SECONDS``.
    """
    from deepspeed.accelerator import get_accelerator
    from deepspeed.comm.torch import build_shm_op

    builder: Any = get_accelerator().create_op_builder("ShareMemCommBuilder")
    if builder is not None:
        folder = cpp_extension._get_build_directory(builder.name, verbose=False)
        build_alone(Path(folder), build_shm_op)


def build_alone(folder: Path, build: Callable[[], object], *, wait_seconds: float = BUILD_SECONDS) -> None:
    """Call ``build``, which builds in ``folder``, while no other process does, and after dead locks were removed.

    Raises:
        KernelError: the compiler fails.
        BuildBlocked: another process builds for more than ``wait_seconds``.
    """
    with _turn(folder, wait_seconds):
        _remove_dead_lock(folder / LOCK, wait_seconds)
        try:
            build()
        except RuntimeError as error:
            if "Error building extension" not in str(error):
                raise
            raise KernelError(
                f"training.deepspeed: the C++ compiler can't build its communication kernel in {folder}; mend the "
                "compiler (its words are in the run's log), or remove training.deepspeed"
            ) from error


@contextmanager
def _turn(folder: Path, wait_seconds: float) -> Iterator[None]:
    """Our own lock, which the system takes back from a process that dies."""
    deadline = time.monotonic() + wait_seconds
    with (folder / OUR_LOCK).open("w") as stream:
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                _wait(deadline, folder / OUR_LOCK)
        yield


def _remove_dead_lock(lock: Path, wait_seconds: float) -> None:
    """Return when there is no lock file: removed here when nobody holds it open, waited for while somebody does."""
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            state = lock.stat()
        except FileNotFoundError:
            return
        if time.time() - state.st_mtime > SETTLED_SECONDS and not is_open(state):
            lock.unlink(missing_ok=True)
            logger.warning("%s was left by a build that was killed; removed", lock)
            return
        _wait(deadline, lock)


def is_open(state: os.stat_result) -> bool:
    """Whether a process of this machine, as far as this user may look, has the file open."""
    return any((seen.st_dev, seen.st_ino) == (state.st_dev, state.st_ino) for seen in _open_files())


def _open_files() -> Iterator[os.stat_result]:
    """What is open on this machine; processes and descriptors come and go while it looks."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            descriptors = list((process / "fd").iterdir())
        except OSError:
            continue
        for descriptor in descriptors:
            with suppress(OSError):
                yield descriptor.stat()


def _wait(deadline: float, lock: Path) -> None:
    if time.monotonic() > deadline:
        raise BuildBlocked(f"{lock} is held by another build of DeepSpeed's kernel for too long; end it or wait")
    time.sleep(POLL_SECONDS)
