"""``distox validate``, ``distox schema`` and the help: what needs no stack."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from configs.schema.kinds import KINDS
from tests.api.command import ROOT, run_command


def test_validate_says_ok_with_kind_and_name() -> None:
    result = run_command("validate", str(ROOT / "configs" / "quickstart.yaml"))
    assert result.exit_code == 0
    assert ": OK pipeline quickstart (data -> teacher" in result.stdout


def test_validate_takes_the_file_for_the_name_of_a_spec_without_one(tmp_path: Path) -> None:
    file = tmp_path / "little.yaml"
    file.write_text("kind: export\nmodel: {name: someone/student}\n", "utf-8")
    assert run_command("validate", str(file)).stdout == f"{file}: OK export little\n"


def test_validate_prints_one_line_for_each_fault_and_exits_2(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text('kind: export\nmodel: {nam: x}\nresources: {cpus: "2"}\n', "utf-8")
    good = ROOT / "configs" / "quickstart.yaml"
    result = run_command("validate", str(wrong), str(good), str(tmp_path / "missing.yaml"))
    assert result.exit_code == 2
    assert str(good) in result.stdout
    lines = result.stderr.splitlines()
    assert len(lines) == 3
    assert all(line.startswith(str(tmp_path)) for line in lines)
    assert any("model.nam" in line and "did you mean name?" in line for line in lines)
    assert any("no such file" in line for line in lines)


def test_validate_gives_programs_the_faults_as_json(tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text("kind: distil\n", "utf-8")
    result = run_command("validate", "--json", str(file))
    assert result.exit_code == 2
    (check,) = json.loads(result.stdout)
    assert check["faults"] == [
        {
            "field": "kind",
            "value": '"distil"',
            "message": "is no kind of spec",
            "remedy": f"did you mean distill? the kinds are {', '.join(KINDS)}",
        }
    ]


def test_validate_answers_in_under_a_second() -> None:
    def used_seconds() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    # Of processor time: the machine may be busy with something else.
    before = used_seconds()
    command = [sys.executable, "-m", "api.cli.main", "validate", "configs/quickstart.yaml"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert used_seconds() - before < 1


def test_schema_is_json_schema_of_all_kinds_or_of_one() -> None:
    every = json.loads(run_command("schema").stdout)
    assert set(every["discriminator"]["mapping"]) >= {"distill", "pipeline"}
    one = json.loads(run_command("schema", "--kind", "distill").stdout)
    assert "teacher_model" in one["properties"]
    wrong = run_command("schema", "--kind", "distil")
    assert wrong.exit_code == 2
    assert "distill" in wrong.stderr


OWN_COMMANDS = [
    "validate",
    "schema",
    "submit",
    "list",
    "show",
    "cancel",
    "metrics",
    "artifacts list",
    "artifacts download",
    "keys create",
    "keys list",
    "keys revoke",
]


@pytest.mark.parametrize("command", OWN_COMMANDS)
def test_help_of_a_command_teaches_with_an_example(command: str) -> None:
    result = run_command(*command.split(), "--help")
    assert result.exit_code == 0
    # Beside the line that begins with Usage.
    assert f"\n  distox {command} " in result.stdout


def test_help_lists_every_command_and_the_exit_codes() -> None:
    shown = run_command("--help").stdout
    for command in (*OWN_COMMANDS[:7], "artifacts", "keys", "quickstart", "up", "down", "status", "env"):
        assert f" {command} " in shown
    assert "Exit codes" in shown
