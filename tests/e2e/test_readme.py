"""The README: its commands are run as they stand there, in a copy of the repository, by a shell."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.processes import find_marked
from cluster.stack_state import read_stack

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
SECONDS = 420


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_the_two_commands_are_those_that_ci_runs() -> None:
    (first,) = blocks("console")
    targets = re.findall(r"^\$ make (\S+)", first, re.MULTILINE)
    assert targets == ["quickstart", "test"]
    makefile = (ROOT / "Makefile").read_text("utf-8")
    ci = (ROOT / ".ci" / "run").read_text("utf-8")
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
        assert re.search(rf"for target in .*\b{target}\b", ci), target


def test_every_file_that_the_readme_names_is_there() -> None:
    named = set(re.findall(r"\b(?:configs|jobs|workers|cluster|api|tests)/[\w./-]*", README))
    assert "configs/smoke.yaml" in named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


@pytest.mark.soak
@pytest.mark.timeout(SECONDS + 60)
def test_the_three_uses_work_as_they_are_written(tmp_path: Path) -> None:
    clone = tmp_path / "distox"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, clone / name)
    script = "\n".join(blocks("bash")).replace(
        "source .venv/bin/activate", f'PATH="{Path(sys.executable).parent}:$PATH"'
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DISTOX_", "RAY_"))}
    home = clone / ".distox"
    stack = None
    try:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script.replace("distox down", "cp .distox/stack.json . && distox down")],
            cwd=clone,
            env=environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        shutil.copy(clone / "stack.json", tmp_path / "stack.json")
        stack = read_stack(tmp_path)
        assert stack is not None
        assert find_marked(stack.stack_id) == []
    finally:
        subprocess.run(
            [sys.executable, "-m", "api.cli.main", "down"],
            cwd=ROOT,
            env={**environment, "DISTOX_HOME": str(home)},
            check=False,
        )
    with (clone / "comments.detoxified.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["id"], row["author"]) for row in rows] == [("1", "lena"), ("2", "tom")]
    assert all(row["distox_status"] for row in rows)
    assert "joint" in done.stdout
