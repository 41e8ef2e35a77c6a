"""How the command line finds the API and its key, and what it says when there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.api.command import run_command
from tests.api.conftest import Api


def test_without_a_stack_it_says_how_to_start_one(tmp_path: Path) -> None:
    result = run_command("list", environment={"DISTOX_HOME": str(tmp_path)})
    assert result.exit_code == 3
    assert f"no stack runs in {tmp_path}; start it with `distox up`" in result.stderr


def write_stack(home: Path, url: str, key: str | None) -> None:
    parts = ("ray_address", "redis_url", "store_url", "store_id", "storage_url")
    state = {"stack_id": "s", "owner_pid": None, "owner_created": None, "ray_token_path": None, "api_url": url}
    (home / "stack.json").write_text(json.dumps({**dict.fromkeys(parts, ""), **state}), "utf-8")
    if key is not None:
        (home / "api-key").write_text(f"{key}\n", "utf-8")


def test_the_stack_of_the_home_is_found_with_its_key(api: Api, url: str, tmp_path: Path) -> None:
    write_stack(tmp_path, url, api.keys["root"])
    result = run_command("list", environment={"DISTOX_HOME": str(tmp_path)})
    assert (result.exit_code, result.stderr) == (0, "")


def test_a_stack_that_is_gone_is_said_with_the_remedy(tmp_path: Path) -> None:
    write_stack(tmp_path, "http://127.0.0.1:1", "dx_a_b")
    result = run_command("list", environment={"DISTOX_HOME": str(tmp_path)})
    assert result.exit_code == 3
    assert "http://127.0.0.1:1" in result.stderr
    assert "distox up" in result.stderr


def test_the_address_of_a_former_stack_is_said_with_the_present_one(api: Api, url: str, tmp_path: Path) -> None:
    write_stack(tmp_path, url, api.keys["root"])
    former = {"DISTOX_API_URL": "http://127.0.0.1:1", "DISTOX_API_KEY": api.keys["root"]}
    result = run_command("list", environment={"DISTOX_HOME": str(tmp_path), **former})
    assert result.exit_code == 3
    assert f'API at {url}: eval "$(distox env)" again' in result.stderr


def test_the_key_of_the_home_is_never_sent_to_another_address(api: Api, url: str, tmp_path: Path) -> None:
    write_stack(tmp_path, url, api.keys["root"])
    result = run_command("list", environment={"DISTOX_HOME": str(tmp_path), "DISTOX_API_URL": url})
    assert result.exit_code == 2
    assert "DISTOX_API_KEY is not set" in result.stderr


@pytest.mark.parametrize(("content", "words"), [("{", "can't be read"), (None, "api-key")])
def test_a_broken_home_is_one_line(tmp_path: Path, content: str | None, words: str) -> None:
    write_stack(tmp_path, "http://127.0.0.1:1", None)
    if content is not None:
        (tmp_path / "stack.json").write_text(content, "utf-8")
    result = run_command("list", environment={"DISTOX_HOME": str(tmp_path)})
    assert result.exit_code in (1, 2)
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_wrong_key_says_where_keys_are(api: Api, url: str) -> None:
    environment = {"DISTOX_API_URL": url, "DISTOX_API_KEY": "dx_00000000_wrong"}
    result = run_command("list", environment=environment)
    assert result.exit_code == 2
    assert "DISTOX_API_KEY" in result.stderr
    assert "wrong" not in result.stderr
