"""Every command that distox hints at (in messages, help, docstrings, the README and the specs' comments) exists."""

from __future__ import annotations

import ast
import difflib
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from api.cli.main import app
from tests.api.command import ROOT, run_command

ROOMS = ("api", "cluster", "configs", "jobs", "workers")
PAGES = sorted([ROOT / "README.md", *(ROOT / "configs").rglob("*.yaml")])
SOURCES = sorted(file for room in ROOMS for file in (ROOT / room).rglob("*.py"))

COMMAND: Any = typer.main.get_command(app)
GAP = "\x01"
"""Where an f-string has a value."""
QUOTED = re.compile(r"(?:`|\$\()distox ([^`)]*)")
"""In backticks, or run by a shell."""
OPEN = re.compile(rf"(?:^[#\s{GAP}]*|[:;] |&& )distox ([^`;|>)\n]*)", re.MULTILINE)
"""On a line of its own, or after a colon: may also be prose."""
END = re.compile(r"[;|>]|:\s|:$|\s#|\s&&|…")
MODULE = re.compile(r"python -m ([a-z_]+(?:\.[a-z_]+)*)")


def texts(file: Path) -> Iterator[str]:
    """What a file says: the strings of a module, docstrings included; another file whole."""
    content = file.read_text("utf-8")
    if file.suffix != ".py":
        yield content
        return
    tree = ast.parse(content)
    inside = {part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (str(part.value) if isinstance(part, ast.Constant) else GAP for part in node.values)
            yield "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in inside:
            yield node.value


def hints(text: str) -> Iterator[list[str]]:
    """The words after ``distox`` of every command in a text."""
    for match in QUOTED.finditer(text):
        if words := words_of(match[1]):
            yield words
    for match in OPEN.finditer(text):
        words = words_of(match[1])
        # "distox writes …" is prose; "distox artefacts RUN" is not.
        if words and difflib.get_close_matches(words[0], COMMAND.commands, n=1, cutoff=0.75):
            yield words


def words_of(text: str) -> list[str]:
    return [word.replace(GAP, "1").strip('"') for word in END.split(text, 1)[0].split()]


def fault_of(words: list[str]) -> str | None:
    """Why a command can't be given like this; None when it can. Naming a command without its arguments is fine."""
    command, rest = COMMAND, list(words)
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        if rest[0] not in command.commands:
            return f"there is no command {rest[0]}"
        command = command.commands[rest.pop(0)]
    shown = run_command(*words, "--help")
    if shown.exit_code != 0:
        return shown.stderr
    if not rest or hasattr(command, "commands") or "--help" in rest:
        return None
    given, _, _ = command.make_parser(command.context_class(command)).parse_args(rest)
    required = [item for item in command.params if item.param_type_name == "argument" and item.required]
    missing = [item.name for item in required if not isinstance(given.get(item.name), (str, list, tuple))]
    return f"{', '.join(missing)} is missing" if missing else None


FOUND = {
    tuple(words): file.relative_to(ROOT).as_posix()
    for file in [*SOURCES, *PAGES]
    for text in texts(file)
    for words in hints(text)
}
"""Hint → a file that gives it."""


@pytest.mark.parametrize("hint", FOUND, ids=" ".join)
def test_a_command_that_is_hinted_at_can_be_given(hint: tuple[str, ...]) -> None:
    assert fault_of(list(hint)) is None, FOUND[hint]


def test_every_command_is_hinted_at_in_text_of_every_kind() -> None:
    assert {hint[0] for hint in FOUND} - {"--help"} == set(COMMAND.commands)
    endings = {Path(file).suffix for file in FOUND.values()}
    assert endings == {".py", ".md", ".yaml"}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("results: distox artefacts list r-1", "no command artefacts"),
        ("see `distox artifacts r-1`", "no command r-1"),
        ("`distox show r-1 --jsn`", "No such option"),
        ("$(distox artifacts download r-1)", "is missing"),
        ("    distox shw r-1", "no command shw"),
    ],
)
def test_a_wrong_hint_would_be_seen(text: str, fault: str) -> None:
    ((words),) = hints(text)
    assert fault in str(fault_of(words))


@pytest.mark.parametrize(
    "text", ["distox writes it itself", "a newer distox: list it", "`distox artifacts` lists them"]
)
def test_prose_and_the_name_of_a_command_are_no_wrong_hints(text: str) -> None:
    assert [fault_of(words) for words in hints(text)] in ([], [None])


def test_modules_that_are_hinted_at_can_be_run() -> None:
    named = {module for file in [*SOURCES, *PAGES] for text in texts(file) for module in MODULE.findall(text)}
    assert {"cluster.submit", "api"} <= named
    for module in named:
        spec = importlib.util.find_spec(module)
        assert spec is not None, module
        assert spec.submodule_search_locations is None or importlib.util.find_spec(f"{module}.__main__"), module
