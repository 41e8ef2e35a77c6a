"""The embedded stack: Redis, a Ray head, the coordinator and the API, started and ended together.

Guarantee: it ends only processes that it started, by pid, also after a crash of what started it; two stacks with two
homes live side by side. A part whose address is configured (``DISTOX_REDIS_URL``, ``RAY_ADDRESS``,
``DISTOX_STORE_URL``) is used and not started. ``stack.json`` names the stack before its first process exists.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil

from cluster.interrupts import hold_interrupts
from cluster.processes import end_marked, find_marked
from cluster.stack_checks import check_configured
from cluster.stack_parts import redis_socket_url, start_parts
from cluster.stack_state import Progress, Stack, StackError, forget_stack, read_stack, write_stack
from cluster.store import Store
from configs.settings import Settings

GRACE_SECONDS = 3.0
"""SIGTERM to SIGKILL when a stack is ended; Ctrl-C must be over within 10 s. Drivers write their end down within 2 s,
Redis its file at once, and Ray's own processes have nothing to lose."""


def is_running(stack: Stack) -> bool:
    """Whether its processes live and the process that owned it, if any, does too."""
    return bool(find_marked(stack.stack_id)) and not _is_abandoned(stack)


def start_stack(settings: Settings, *, progress: Progress, owned: bool, num_cpus: int | None = None) -> Stack:
    """Start the parts that are not configured elsewhere and wait until all answer.

    Leftovers of a crashed start are ended first. An ``owned`` stack counts as abandoned once this process is gone.

    Raises:
        StackError: one runs in this home already, or a part can't be started (then nothing is left running).
    """
    home = make_home(settings)
    settings = _without_own(settings)
    with _lock(home):
        present = read_stack(home)
        if present is not None and is_running(present):
            raise StackError(f"a stack runs in {home} already; `distox status` shows it, `distox down` ends it")
        if present is not None and (count := end_marked(present.stack_id, grace_seconds=GRACE_SECONDS)):
            progress(f"ended {count} processes of a stack that was not shut down")
        check_configured(settings)
        store_url = settings.store_url or settings.default_store_url
        store = Store.open(store_url, migrate=True)
        # Until all answer the stack belongs to this process, whoever owns it then: a start that was killed is no stack.
        starter = psutil.Process()
        draft = Stack(
            stack_id=uuid.uuid4().hex,
            owner_pid=starter.pid,
            owner_created=starter.create_time(),
            ray_address=settings.ray_address or "",
            redis_url=settings.redis_url or "",
            store_url=store_url,
            store_id=store.store_id,
            storage_url=settings.storage_url,
            api_url="",
            ray_token_path=settings.ray_token_path if settings.ray_address else str(home / "ray-token"),
        )
        _ensure_secrets(home, store, with_ray_token=settings.ray_address is None)
        store.close()
        write_stack(home, draft)
        try:
            stack = start_parts(draft, settings, progress=progress, num_cpus=num_cpus)
            if not owned:
                stack = replace(stack, owner_pid=None, owner_created=None)
            write_stack(home, stack)
            return stack
        except BaseException:
            with hold_interrupts():
                end_marked(draft.stack_id, grace_seconds=GRACE_SECONDS)
                forget_stack(home)
            raise


def stop_stack(home: Path) -> int:
    """End the stack of a home; nothing happens when there is none. Once begun it is carried through: a signal waits.

    Returns:
        How many processes were ended.
    """
    if not home.is_dir():
        return 0
    with hold_interrupts(), _lock(home):
        stack = read_stack(home)
        if stack is None:
            return 0
        # Drivers first would be relaunched by the coordinator: everything is asked at once.
        count = end_marked(stack.stack_id, grace_seconds=GRACE_SECONDS)
        forget_stack(home)
        return count


def make_home(settings: Settings) -> Path:
    """Create the home and the short private folder for sockets.

    Raises:
        StackError: the home can't be written, or the private folder belongs to somebody else.
    """
    home = settings.home
    try:
        for folder in (home, home / "logs", home / "redis"):
            folder.mkdir(parents=True, exist_ok=True)
        probe = home / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
        # A home inside a folder that is submitted or committed stays out of it, with its keys.
        (home / ".gitignore").write_text("*\n", "utf-8")
    except OSError as error:
        raise StackError(
            f"the home {home} can't be written ({error.strerror}); set DISTOX_HOME to another folder"
        ) from error
    runtime = settings.runtime_folder
    runtime.mkdir(mode=0o700, exist_ok=True)
    state = runtime.lstat()
    if state.st_uid != os.getuid() or state.st_mode & 0o077 or runtime.is_symlink():
        raise StackError(f"{runtime} is not a private folder of this user; remove it or set TMPDIR to another folder")
    return home


def wait_for_end(stack: Stack, *, timeout_seconds: float) -> bool:
    """Whether all processes of the stack were gone within the time."""
    deadline = time.monotonic() + timeout_seconds
    while find_marked(stack.stack_id):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _without_own(settings: Settings) -> Settings:
    """Forget the addresses of this home's own stack: a shell still carries them after ``eval "$(distox env)"``."""
    own_redis = settings.redis_url == redis_socket_url(settings)
    return replace(
        settings,
        redis_url=None if own_redis else settings.redis_url,
        ray_address=None if settings.is_own_ray else settings.ray_address,
    )


def _is_abandoned(stack: Stack) -> bool:
    if stack.owner_pid is None:
        return False
    try:
        owner = psutil.Process(stack.owner_pid)
        return owner.create_time() != stack.owner_created or owner.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _ensure_secrets(home: Path, store: Store, *, with_ray_token: bool) -> None:
    key_file = home / "api-key"
    if not key_file.exists() or store.find_key(key_file.read_text("utf-8").strip()) is None:
        _write_private(key_file, store.create_key(owner="local", role="admin", name="made at first start"))
    if with_ray_token and not (home / "ray-token").exists():
        _write_private(home / "ray-token", secrets.token_hex(32))


def _write_private(file: Path, text: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)


@contextmanager
def _lock(home: Path) -> Iterator[None]:
    """One start or stop of a home at a time; the lock goes with the process that holds it."""
    with (home / "stack.lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StackError(f"another distox starts or stops a stack in {home} right now; wait for it") from error
        yield
