"""Child processes that can be found again and ended, and no others.

Guarantee: every process of a stack carries the stack's id in its environment (``DISTOX_STACK_ID``), and so do its
children and theirs, whatever started them and whether their parents still live. Only processes that carry the id are
ever signalled, by pid. A shell that uses a stack does not carry it.
"""

from __future__ import annotations

import errno
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

MARK = "DISTOX_STACK_ID"
POLL_SECONDS = 0.05
LISTENING_PORTS = range(20_000, 32_768)
"""Above the well-known ports, below Linux's default ``ip_local_port_range``."""


class ProcessFailed(RuntimeError):  # noqa: N818 (says what happened, as the standard library's TimeoutExpired does)
    """A child ended, or was not ready in time; the message holds the end of its log."""


def spawn(
    command: Sequence[str], *, stack_id: str, environment: Mapping[str, str], log: Path, cwd: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start a marked child in a session of its own, so that Ctrl-C in the terminal reaches only the parent."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as stream:
        return subprocess.Popen(
            list(command),
            env={**environment, MARK: stack_id},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            start_new_session=True,
        )


def wait_until_ready(
    name: str, child: subprocess.Popen[bytes], is_ready: Callable[[], bool], *, log: Path, timeout_seconds: float
) -> None:
    """Poll until the child is ready.

    Raises:
        ProcessFailed: it ended, or the time is over.
    """
    deadline = time.monotonic() + timeout_seconds
    while not is_ready():
        if child.poll() is not None:
            raise ProcessFailed(f"{name} ended with exit code {child.returncode}; {_log_end(log)}")
        if time.monotonic() > deadline:
            raise ProcessFailed(f"{name} was not ready after {timeout_seconds:.0f} s; {_log_end(log)}")
        time.sleep(POLL_SECONDS)


def find_marked(stack_id: str) -> list[psutil.Process]:
    """The living processes that carry the id, other than this one."""
    found = []
    for process in psutil.process_iter():
        try:
            # A zombie shows no environment.
            if process.pid != os.getpid() and process.environ().get(MARK) == stack_id:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def memory_bytes(stack_id: str) -> int:
    """Memory of the living processes that carry the id; what several share is divided among them (Linux's PSS)."""
    total = 0
    for process in find_marked(stack_id):
        try:
            found = process.memory_full_info()
            total += getattr(found, "pss", found.uss)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return total


def end_marked(stack_id: str, *, grace_seconds: float) -> int:
    """End every process that carries the id: SIGTERM, and SIGKILL for what is left after the grace period.

    Processes that are born meanwhile are found too: it looks again until there are none.

    Returns:
        How many processes were ended.
    """
    ended: set[int] = set()
    deadline = time.monotonic() + grace_seconds
    asked: set[int] = set()
    while processes := find_marked(stack_id):
        late = time.monotonic() > deadline
        for process in processes:
            ended.add(process.pid)
            if late:
                _signal(process, signal.SIGKILL)
            elif process.pid not in asked:
                asked.add(process.pid)
                _signal(process, signal.SIGTERM)
        time.sleep(POLL_SECONDS)
    for pid in ended:
        reap(pid)
    return len(ended)


def reap(pid: int) -> None:
    """Collect the exit status of an own child, so that no zombie stays; nothing for somebody else's."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return


def free_ports(count: int) -> list[int]:
    """Distinct TCP ports of the loopback address that nobody listens on now.

    They lie below those that the kernel gives to outgoing connections, or one that is opened before a child binds its
    port would take it: Ray then goes on without its dashboard.

    Raises:
        OSError: nearly all are taken.
    """
    found: list[int] = []
    for port in random.sample(LISTENING_PORTS, len(LISTENING_PORTS)):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise OSError(errno.EADDRINUSE, f"there are no {count} free ports from {LISTENING_PORTS[0]:,} on")


def _signal(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return
    reap(process.pid)


def _log_end(log: Path) -> str:
    lines = log.read_text("utf-8", errors="replace").splitlines()[-15:] if log.exists() else []
    return f"the end of {log}:\n" + "\n".join(f"    {line}" for line in lines) if lines else f"{log} is empty"
