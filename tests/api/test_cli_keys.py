"""``distox keys``: keys are made in the store, shown once, and the API lets each do what its role says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import Result

from cluster.store import Store
from tests.api.command import run_command
from tests.api.conftest import Api
from tests.api.specs import EXPORT, export
from tests.api.test_cli_connect import write_stack


def distox(home: Path, *arguments: str) -> Result:
    """The command with the store of a home, and no API."""
    return run_command("keys", *arguments, environment={"DISTOX_HOME": str(home)})


def make(home: Path, *arguments: str) -> str:
    """A new key, in plain."""
    result = distox(home, "create", *arguments)
    assert result.exit_code == 0, result.stderr
    return result.stdout.strip()


def test_a_key_is_the_only_thing_on_stdout_and_is_found_in_the_store(store: Store, tmp_path: Path) -> None:
    result = distox(tmp_path, "create", "ada", "--role", "viewer", "--name", "dashboard")
    assert len(result.stdout.splitlines()) == 1
    key = store.find_key(result.stdout.strip())
    assert key is not None
    assert (key.owner, key.role, key.name) == ("ada", "viewer", "dashboard")
    assert f"made {key.prefix}: viewer of ada" in result.stderr
    assert result.stdout.strip() not in result.stderr


def test_without_a_role_a_key_is_a_submitters(store: Store, tmp_path: Path) -> None:
    key = store.find_key(make(tmp_path, "ada"))
    assert key is not None
    assert key.role == "submitter"


@pytest.mark.parametrize(
    ("role", "reads", "submits", "cancels_own", "sees_others"),
    [("viewer", 200, 403, 403, 404), ("submitter", 200, 201, 200, 404), ("admin", 200, 201, 200, 200)],
)
def test_the_api_lets_a_made_key_do_what_its_role_says(
    api: Api, role: str, reads: int, submits: int, cancels_own: int, sees_others: int
) -> None:
    own, others = (api.store.submit(export(), owner=owner).id for owner in ("carl", "ada"))
    client = api.as_(None)
    client.headers["Authorization"] = f"Bearer {make(api.home, 'carl', '--role', role)}"
    assert client.get(f"/v1/runs/{own}").status_code == reads
    assert client.post("/v1/runs", json=EXPORT).status_code == submits
    assert client.post(f"/v1/runs/{own}/cancel").status_code == cancels_own
    assert client.get(f"/v1/runs/{others}").status_code == sees_others


def test_a_run_belongs_to_the_owner_of_the_key(api: Api) -> None:
    client = api.as_(None)
    client.headers["Authorization"] = f"Bearer {make(api.home, 'carl')}"
    assert client.post("/v1/runs", json={**EXPORT}).json()["owner"] == "carl"
    refused = client.post("/v1/runs", json={**EXPORT, "owner": "ada"})
    assert refused.status_code == 422
    assert "the owner comes from the API key" in refused.text


def test_a_revoked_key_opens_nothing_and_stays_in_the_list(api: Api) -> None:
    plain = make(api.home, "carl", "--name", "old laptop")
    prefix = plain.split("_")[1]
    assert distox(api.home, "revoke", prefix).stdout == f"{prefix}: revoked\n"
    assert api.as_(None).get("/v1/runs", headers={"Authorization": f"Bearer {plain}"}).status_code == 401
    (shown,) = [key for key in json.loads(distox(api.home, "list", "--json").stdout) if key["prefix"] == prefix]
    assert shown["revoked_at"] is not None
    assert distox(api.home, "revoke", prefix).exit_code == 0


@pytest.mark.parametrize("form", ["{prefix}", "dx_{prefix}", "{plain}"])
def test_a_key_is_revoked_by_its_prefix_or_whole(store: Store, tmp_path: Path, form: str) -> None:
    plain = make(tmp_path, "ada")
    given = form.format(plain=plain, prefix=plain.split("_")[1])
    assert distox(tmp_path, "revoke", given).exit_code == 0
    assert store.find_key(plain) is None


def test_when_one_of_several_is_unknown_none_is_revoked(store: Store, tmp_path: Path) -> None:
    plain = make(tmp_path, "ada")
    result = distox(tmp_path, "revoke", plain.split("_")[1], "ffffffff")
    assert result.exit_code == 2
    assert "no key begins with ffffffff; `distox keys list` shows them" in result.stderr
    assert store.find_key(plain) is not None


def test_revoking_the_homes_own_key_says_how_to_get_another(store: Store, tmp_path: Path) -> None:
    plain = make(tmp_path, "local", "--role", "admin")
    (tmp_path / "api-key").write_text(f"{plain}\n", "utf-8")
    assert "the next `distox up` makes another" in distox(tmp_path, "revoke", plain).stderr


def test_the_list_shows_no_secret(store: Store, tmp_path: Path) -> None:
    assert "no keys; make one with `distox keys create OWNER`" in distox(tmp_path, "list").stdout
    plain = make(tmp_path, "ada", "--role", "viewer", "--name", "[bold]x[/bold]")
    for options in ((), ("--json",)):
        shown = distox(tmp_path, "list", *options).stdout
        assert plain.split("_", 2)[2] not in shown
        for words in (plain.split("_")[1], "ada", "viewer", "[bold]x[/bold]"):
            assert words in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ada", "--role", "owner"], "'viewer', 'submitter', 'admin'"),
        (["a b"], "can't be an owner; use up to 100 letters"),
        ([""], "can't be an owner"),
        (["a" * 101], "can't be an owner"),
        (["ada", "--name", "two\nlines"], "one line"),
        ([], "Missing argument 'OWNER'"),
    ],
)
def test_a_key_that_can_not_be_made_is_refused_with_the_reason(
    store: Store, tmp_path: Path, arguments: list[str], words: str
) -> None:
    result = distox(tmp_path, "create", *arguments)
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.replace("│", " ").split())
    assert store.keys() == []


def test_without_a_store_it_says_how_to_make_one(tmp_path: Path) -> None:
    result = distox(tmp_path, "list")
    assert result.exit_code == 1
    assert f"no store at {tmp_path / 'store.sqlite'}; start the stack with `distox up`" in result.stderr


def test_the_store_is_the_one_that_the_homes_stack_uses(store: Store, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    write_stack(home, "http://127.0.0.1:1", None)
    state = json.loads((home / "stack.json").read_text("utf-8"))
    state["store_url"] = f"sqlite:///{tmp_path / 'store.sqlite'}"
    (home / "stack.json").write_text(json.dumps(state), "utf-8")
    assert store.find_key(make(home, "ada")) is not None
