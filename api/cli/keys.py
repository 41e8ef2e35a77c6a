"""``distox keys``: who may use the API, and as what.

Keys are made in the results store itself, not through the API: whoever may open the store may make them, so there is no
first key to begin with and none to lose. A key is shown once; what is stored can't be used as one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.connect import FAILED, WRONG, fail
from api.cli.runs import Json
from api.cli.stack import settings_or_exit
from api.roles import Role

if TYPE_CHECKING:
    from cluster.keys import ApiKey
    from cluster.store import Store
    from configs.settings import Settings

OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,99}")
MAX_NAME = 200

keys = typer.Typer(
    help="Make, list and revoke the keys of the API. They are in the results store: the stack need not run.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(keys, name="keys")


@keys.command()
def create(
    owner: Annotated[
        str,
        typer.Argument(
            help="Whose runs it reads and submits, as `ada` or `ada@example.org`.", metavar="OWNER", show_default=False
        ),
    ],
    role: Annotated[
        Role, typer.Option(help="A viewer reads, a submitter also submits and cancels, an admin does so for everybody.")
    ] = Role.SUBMITTER,
    name: Annotated[str, typer.Option(help="What the key is for, shown by `distox keys list`.")] = "",
    as_json: Json = False,
) -> None:
    """Make a key and print it, this once.

    The runs that the embedded stack makes (`distox quickstart`, `ray job submit`) belong to the owner `local`.

    ```
    distox keys create ada
    distox keys create ada --role viewer --name dashboard
    export DISTOX_API_KEY="$(distox keys create ada)"
    ```
    """
    if OWNER.fullmatch(owner) is None:
        remedy = "use up to 100 letters, digits and . _ @ -, beginning with a letter or digit"
        raise typer.BadParameter(f"{owner!r} can't be an owner; {remedy}", param_hint="OWNER")
    if len(name) > MAX_NAME or not name.isprintable():
        raise typer.BadParameter(f"use at most {MAX_NAME} characters on one line", param_hint="--name")
    with _opened_store() as (store, _):
        plain = store.create_key(owner, str(role), name)
        key = store.find_key(plain)
    assert key is not None, "a key that was made is found"
    if as_json:
        typer.echo(json.dumps({**_as_dict(key), "key": plain}, indent=2))
        return
    # The key alone on stdout, so that a shell can take it.
    typer.echo(plain)
    typer.echo(f"made {key.prefix}: {role} of {owner}; keep it now, it can't be shown again", err=True)


@keys.command("list")
def list_keys(as_json: Json = False) -> None:
    """List the keys, oldest first, revoked ones too; a key itself can't be shown.

    ```
    distox keys list
    ```
    """
    with _opened_store() as (store, _):
        found = store.keys()
    if as_json:
        typer.echo(json.dumps([_as_dict(key) for key in found], indent=2))
    elif not found:
        typer.echo("no keys; make one with `distox keys create OWNER`")
    else:
        from api.cli.tables import keys_table, render

        render(keys_table(found))


@keys.command()
def revoke(
    given: Annotated[
        list[str], typer.Argument(help="As `distox keys list` shows it.", metavar="PREFIX", show_default=False)
    ],
) -> None:
    """Make keys useless, at once and for good.

    ```
    distox keys revoke 1f0a2b3c
    ```
    """
    prefixes = [_prefix(item) for item in given]
    with _opened_store() as (store, settings):
        known = {key.prefix for key in store.keys()}  # noqa: SIM118 (a store is no mapping)
        if unknown := [item for item in prefixes if item not in known]:
            fail(f"no key begins with {', '.join(unknown)}; `distox keys list` shows them", code=WRONG)
        own = _own_prefix(settings)
        for prefix in prefixes:
            store.revoke_key(prefix)
            typer.echo(f"{prefix}: revoked")
            if prefix == own:
                typer.echo("it was this home's own key; the next `distox up` makes another", err=True)


def _prefix(given: str) -> str:
    """The prefix of a key, of which the whole may be given."""
    parts = given.split("_")
    return parts[1] if parts[0] == "dx" and len(parts) > 1 else given


def _own_prefix(settings: Settings) -> str | None:
    try:
        return _prefix((settings.home / "api-key").read_text("utf-8").strip())
    except OSError:
        return None


def _as_dict(key: ApiKey) -> dict[str, Any]:
    revoked = None if key.revoked_at is None else key.revoked_at.isoformat()
    made = key.created_at.isoformat()
    plain = {"prefix": key.prefix, "owner": key.owner, "role": key.role, "name": key.name}
    return {**plain, "created_at": made, "revoked_at": revoked}


@contextmanager
def _opened_store() -> Iterator[tuple[Store, Settings]]:
    """The store of ``DISTOX_STORE_URL``, else that of the home's stack, else the home's own; exits with 1 without."""
    from cluster.stack_state import StackError, read_stack
    from cluster.store import Store, StoreError

    settings = settings_or_exit()
    try:
        stack = read_stack(settings.home)
        of_stack = None if stack is None else stack.store_url
        store = Store.open(settings.store_url or of_stack or settings.default_store_url)
        try:
            yield store, settings
        finally:
            store.close()
    except (StackError, StoreError) as error:
        fail(str(error), code=FAILED)
