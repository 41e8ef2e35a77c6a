"""The ``distox`` command, run in the test's own process."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from typer.testing import CliRunner, Result

from api.cli.main import app
from tests.api.conftest import Api

ROOT = Path(__file__).parents[2]


def run_command(*arguments: str, environment: Mapping[str, str] | None = None) -> Result:
    # Nor may the terminal of whoever runs the tests change what is printed.
    terminal = ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "COLUMNS")
    nothing = {name: None for name in os.environ if name.startswith(("DISTOX_", "RAY_")) or name in terminal}
    return CliRunner().invoke(app, arguments, env={**nothing, **(environment or {})})


class Distox:
    """The command with an API and a key."""

    def __init__(self, api: Api, url: str, who: str) -> None:
        self.environment = {
            "DISTOX_API_URL": url,
            "DISTOX_API_KEY": api.keys[who],
            "DISTOX_HOME": str(api.home / "elsewhere"),
        }

    def __call__(self, *arguments: str) -> Result:
        return run_command(*arguments, environment=self.environment)
