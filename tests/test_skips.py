"""In CI nothing is skipped: what CI doesn't test is tested nowhere."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

SKIPS = {
    "mark": "@pytest.mark.skip(reason='why')\ndef test_it(): pass",
    "condition": "@pytest.mark.skipif(True, reason='why')\ndef test_it(): pass",
    "inside": "def test_it(): pytest.skip('why')",
    "fixture": "@pytest.fixture\ndef tool(): pytest.skip('why')\ndef test_it(tool): pass",
    "module": "pytest.skip('why', allow_module_level=True)",
    "import": "pytest.importorskip('no_such_module', reason='why')",
}
ALLOWED = {
    "gpu": "@pytest.mark.gpu\ndef test_it(): pytest.skip('why')",
    "xfail": "@pytest.mark.xfail(strict=True)\ndef test_it(): assert False",
}


def outcomes(folder: Path, *, ci: str) -> dict[str, tuple[str, str]]:
    """Case → what pytest says of its test, and why."""
    for name, body in (SKIPS | ALLOWED).items():
        (folder / f"test_{name}.py").write_text(f"import pytest\n{body}\n", "utf-8")
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = gpu: needs a GPU\n", "utf-8")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.conftest",
        "-p",
        "no:cacheprovider",
        "--continue-on-collection-errors",
    ]
    command += ["-c", str(folder / "pytest.ini"), "--junit-xml", str(folder / "report.xml"), str(folder)]
    environment = {**os.environ, "CI": ci, "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=60, check=False)
    found = {}
    for case in ElementTree.parse(folder / "report.xml").iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name')}".removeprefix(".").split(".")[0].removeprefix("test_")
        said = next(iter(case), None)
        found[name] = ("passed", "") if said is None else (said.tag, f"{said.get('message')} {said.text}")
    return found


@pytest.fixture(scope="module")
def in_ci(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    return outcomes(tmp_path_factory.mktemp("ci"), ci="true")


@pytest.mark.parametrize("name", SKIPS)
def test_what_is_skipped_fails_in_ci_and_says_why(in_ci: dict[str, tuple[str, str]], name: str) -> None:
    outcome, words = in_ci[name]
    assert outcome in {"failure", "error"}
    assert "in CI nothing may be skipped: Skipped: why" in words


@pytest.mark.parametrize("name", ALLOWED)
def test_a_test_for_a_gpu_and_an_expected_failure_are_no_skips(in_ci: dict[str, tuple[str, str]], name: str) -> None:
    assert in_ci[name][0] == "skipped"


def test_elsewhere_every_skipped_test_is_skipped(tmp_path: Path) -> None:
    found = outcomes(tmp_path, ci="")
    assert {name: outcome for name, (outcome, _) in found.items()} == dict.fromkeys(SKIPS | ALLOWED, "skipped")
