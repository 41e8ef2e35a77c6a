"""What may be loaded by whom: a client, a validation and the API answer on machines without torch and ray."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "transformers", "ray", "redis", "ctranslate2", "datasets", "deepspeed", "numpy"}
SERVER = HEAVY | {"fastapi", "starlette", "uvicorn", "sqlalchemy", "alembic", "psutil"}


@pytest.mark.parametrize(
    ("code", "forbidden"),
    [
        ("import api.app, api.__main__", HEAVY | {"jobs.prepare", "jobs.finetune", "jobs.distill", "jobs.detoxify"}),
        ("import api.client", SERVER),
        ("import api.cli.main", SERVER | {"httpx", "pydantic", "yaml"}),
        ("import api.cli.main, api.cli.tables, api.cli.follow, api.cli.connect, cluster.stack_state", SERVER),
        ("from api.cli.main import app; app(['validate', 'configs/quickstart.yaml'], standalone_mode=False)", SERVER),
        ("from api.cli.main import app; app(['schema', '--kind', 'distill'], standalone_mode=False)", SERVER),
    ],
)
def test_nothing_is_loaded_that_is_not_needed(code: str, forbidden: set[str]) -> None:
    script = f"{code}\nimport sys\nsys.stderr.write(' '.join(set(sys.modules) & {forbidden!r}))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    rooms = f"import sys\n{code}\nsys.stderr.write(' '.join(m for m in sys.modules if m.startswith('workers.')))"
    done = subprocess.run([sys.executable, "-c", rooms], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == ""
