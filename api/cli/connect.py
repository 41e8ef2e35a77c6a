"""How the command line finds the API, and what it says when the API refuses or isn't there.

The address and key are ``DISTOX_API_URL`` and ``DISTOX_API_KEY`` when set, else those of the stack of this home. The
home's key is only ever sent to the home's own API.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import typer

from api.cli.stack import settings_or_exit

if TYPE_CHECKING:
    from api.client import ApiError, Client

FAILED, WRONG, NOTHING_ANSWERS, INTERRUPTED = 1, 2, 3, 130
"""Exit codes; see ``api.cli.main.EXIT_CODES``."""
HINTS = {
    401: "; it is in DISTOX_API_KEY, or in the file api-key of the home; `distox keys create OWNER` makes one",
    403: "; `distox keys create OWNER --role ROLE` makes another key",
}
"""Status → what a person at a shell may do about it."""


@contextmanager
def connected() -> Iterator[Client]:
    """A client of the API; every refusal inside becomes one line on stderr and an exit code.

    Exits with 2 for a wrong spec, key or id, 3 when nothing answers, 1 for what the server couldn't do.
    """
    from api.client import ApiError, ApiUnreachable, Client

    url, key = _address()
    try:
        with Client(url, key) as client:
            yield client
    except ApiUnreachable as error:
        fail(f"{error}; {_where_instead(url)}", code=NOTHING_ANSWERS)
    except ApiError as error:
        tell_refusal(error)
        raise typer.Exit(FAILED if error.status >= 500 else WRONG) from error
    except OSError as error:
        fail(f"{error.filename or 'the file'} can't be written ({error.strerror})", code=FAILED)


def tell_refusal(error: ApiError) -> None:
    """What the API refused, in the words of the command line: one line on stderr for each fault."""
    for fault in error.faults:
        # A parameter of the route is an option here.
        field = fault.field.replace("query.", "--", 1) if fault.field.startswith("query.") else fault.field
        where = f"{field} = {fault.value}" if fault.value else field
        typer.echo(f"{where}: {fault.message}; {fault.remedy}", err=True)
    if not error.faults:
        detail = error.detail.replace("GET /v1/runs lists yours", "`distox list --steps` shows yours")
        typer.echo(f"distox: {detail}{HINTS.get(error.status, '')}", err=True)


def _where_instead(url: str) -> str:
    """What to do when nothing answers at the address: a shell may still carry that of a stack that was ended."""
    from cluster.stack_state import StackError, read_stack

    try:
        stack = read_stack(settings_or_exit().home)
    except StackError:
        stack = None
    if stack is not None and stack.api_url and stack.api_url != url:
        return f'the stack of this home has its API at {stack.api_url}: eval "$(distox env)" again'
    return "start it with `distox up`, or check DISTOX_API_URL"


def fail(message: str, *, code: int) -> NoReturn:
    """Say why and exit."""
    typer.echo(f"distox: {message}", err=True)
    raise typer.Exit(code)


def _address() -> tuple[str, str]:
    """URL and key."""
    from cluster.stack_state import StackError, read_stack

    settings = settings_or_exit()
    if settings.api_url is not None:
        if settings.api_key is None:
            fail(f"DISTOX_API_URL is {settings.api_url}, but DISTOX_API_KEY is not set; set both", code=WRONG)
        return settings.api_url, settings.api_key
    try:
        stack = read_stack(settings.home)
    except StackError as error:
        fail(str(error), code=FAILED)
    if stack is None or not stack.api_url:
        remedy = "start it with `distox up`, or set DISTOX_API_URL and DISTOX_API_KEY"
        fail(f"no stack runs in {settings.home}; {remedy}", code=NOTHING_ANSWERS)
    if settings.api_key is not None:
        return stack.api_url, settings.api_key
    key_file = settings.home / "api-key"
    try:
        return stack.api_url, key_file.read_text("utf-8").strip()
    except OSError as error:
        fail(f"{key_file} can't be read ({error.strerror}); set DISTOX_API_KEY", code=WRONG)
