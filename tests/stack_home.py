"""The ``distox`` command in a home of its own, as somebody types it in a terminal: to be interrupted and killed.

Everything of a home, its sockets and Ray's files included, lies below one short folder that is removed afterwards, and
every process of it is known by that folder, whatever name it gave itself.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from cluster.processes import find_marked
from cluster.stack_state import Stack, read_stack
from tests.waiting import wait_until

BIN = Path(sys.executable).parent
COMMAND_SECONDS = 240.0

TINY_SPEC = """\
kind: pipeline
name: tiny
steps:
  data:
    kind: prepare
    dataset: {name: sample, source_column: toxic, target_column: neutral, split: {column: split}, max_length: 48}
    sample: {num_pairs: 100, num_dump_rows: 10}
"""
"""The cheapest real run: one step that writes a small corpus."""


def training_spec(max_steps: int) -> str:
    """A corpus, then a real training of a model that hardly weighs anything."""
    return f"""\
{TINY_SPEC}    tokenizer: {{vocab_size: 400}}
  teacher:
    kind: finetune
    dataset: {{name: "${{steps.data.dataset}}", max_length: 48}}
    model:
      init: {{hidden_size: 16, layers: {{encoder: 1, decoder: 1}}, ffn_size: 32, attention_heads: 2}}
      tokenizer: ${{steps.data.tokenizer}}
    training: {{max_steps: {max_steps}, batch_size: 4}}
"""


@dataclass(frozen=True)
class Terminal:
    """A command that runs in a session of its own, as one does in a terminal window."""

    process: subprocess.Popen[str]
    log: Path

    def output(self) -> str:
        """What it wrote until now."""
        return self.log.read_text("utf-8", errors="replace")

    def press_ctrl_c(self) -> None:
        """SIGINT to the whole foreground process group, as a terminal sends it."""
        os.killpg(self.process.pid, signal.SIGINT)

    def wait_for_output(self, text: str, seconds: float = COMMAND_SECONDS) -> None:
        """Return once it has written the text; an end without it is an error."""
        wait_until(lambda: text in self.output() or self.process.poll() is not None, seconds, f"{text!r} is written")
        assert text in self.output(), self.output()


@dataclass(frozen=True)
class StackHome:
    """A home, the folder that a user works in, and their shell's environment."""

    folder: Path
    home: Path
    environment: dict[str, str]

    @property
    def work(self) -> Path:
        """Where commands are run."""
        return self.folder / "work"

    def distox(
        self, *arguments: str, seconds: float = COMMAND_SECONDS, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run one command to its end."""
        return self.run([str(BIN / "distox"), *arguments], seconds=seconds, **variables)

    def run(
        self, command: list[str], seconds: float = COMMAND_SECONDS, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run any command in the work folder, with the shell's environment."""
        return subprocess.run(
            command,
            env={**self.environment, **variables},
            cwd=self.work,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )

    def start(self, *arguments: str) -> Terminal:
        """Start one command and leave it running."""
        log = self.folder / f"terminal-{len(list(self.folder.glob('terminal-*')))}.log"
        with log.open("w") as stream:
            process = subprocess.Popen(
                [str(BIN / "distox"), *arguments],
                env=self.environment,
                cwd=self.work,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        return Terminal(process, log)

    def write(self, name: str, text: str) -> Path:
        """A file in the work folder."""
        file = self.work / name
        file.write_text(text, "utf-8")
        return file

    def stack(self) -> Stack | None:
        """What ``stack.json`` says."""
        return read_stack(self.home)

    def num_marked(self) -> int:
        """How many processes carry the stack's mark; 0 before there is a stack."""
        stack = self.stack()
        return len(find_marked(stack.stack_id)) if stack is not None else 0

    def processes(self) -> list[str]:
        """Every living process of this home but this one and its commands' shells: by environment or command line."""
        return [" ".join(process.cmdline()) or process.name() for process in _processes_of(self.folder)]


@contextmanager
def stack_home(*, home: str = "home", **variables: str) -> Iterator[StackHome]:
    """A home that is below a short folder; nothing runs in it yet, and whatever still runs afterwards is ended by pid.

    Args:
        home: the home's path below the folder.
        variables: of the shell's environment, over this process's own.
    """
    # Under /tmp: a socket's path has at most 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="dxs-", dir="/tmp"))
    (folder / "work").mkdir()
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DISTOX_", "RAY_"))}
    path = f"{BIN}{os.pathsep}{kept.get('PATH', os.defpath)}"
    given = {"PATH": path, "DISTOX_HOME": str(folder / home), "TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
    try:
        yield StackHome(folder, folder / home, {**kept, **given, **variables})
    finally:
        _end_all(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _end_all(folder: Path) -> None:
    def kill() -> bool:
        left = _processes_of(folder)
        for process in left:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        return not left

    wait_until(kill, 30, "every process of the home is gone")


def _processes_of(folder: Path) -> list[psutil.Process]:
    found, sessions = [], set()
    living = [process for process in psutil.process_iter() if process.pid != os.getpid()]
    for process in living:
        try:
            environment = process.environ()
            if environment.get("TMPDIR") == str(folder) or any(str(folder) in word for word in process.cmdline()):
                sessions.add(os.getsid(process.pid))
        except (psutil.Error, ProcessLookupError):
            continue
    for process in living:
        try:
            # A process keeps its session whatever it does to its name and environment.
            if os.getsid(process.pid) in sessions - {os.getsid(0)} and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, ProcessLookupError):
            continue
    return found
