"""``distox up``, ``down``, ``status`` and ``env``: the embedded stack of a home."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from configs.settings import Settings, SettingsError, read_settings


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(up)
    app.command()(down)
    app.command()(status)
    app.command("env")(print_environment)


def up(
    num_cpus: Annotated[int | None, typer.Option(help="CPUs that Ray may give out; all when left out.", min=1)] = None,
) -> None:
    """Start Redis, a Ray head, the coordinator and the API, and return when all answer.

    The state lives in $DISTOX_HOME (default ./.distox). What is configured elsewhere by DISTOX_REDIS_URL, RAY_ADDRESS
    or DISTOX_STORE_URL is used and not started.

        distox up
        eval "$(distox env)"
        ray job submit --working-dir . -- python -m cluster.submit configs/quickstart.yaml
        distox down
    """
    from cluster.interrupts import signals_as_interrupt

    settings = settings_or_exit()
    try:
        with signals_as_interrupt():
            from cluster.stack import start_stack
            from cluster.stack_state import StackError
            from cluster.store import StoreError

            stack = start_stack(settings, progress=typer.echo, owned=False, num_cpus=num_cpus)
    except KeyboardInterrupt:
        typer.echo("interrupted; nothing is left running", err=True)
        raise typer.Exit(130) from None
    except (StackError, StoreError) as error:
        typer.echo(f"distox up: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(
        f"home {settings.home}\nAPI  {stack.api_url}  (key in {settings.home / 'api-key'})\nRay  {stack.ray_address}"
    )
    typer.echo('next: eval "$(distox env)"; ray job submit --working-dir . -- python -m cluster.submit SPEC')


def down() -> None:
    """End the stack of this home: only what distox started, by pid. Runs are kept and go on at the next `up`."""
    from cluster.stack import stop_stack
    from cluster.stack_state import StackError

    settings = settings_or_exit()
    try:
        count = stop_stack(settings.home)
    except StackError as error:
        typer.echo(f"distox down: {error}", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    typer.echo(f"ended {count} processes of {settings.home}" if count else f"no stack runs in {settings.home}")


def status() -> None:
    """Show whether the stack of this home runs, and how to reach its parts. Exits 3 when it doesn't run."""
    from cluster.processes import find_marked
    from cluster.stack import is_running
    from cluster.stack_state import StackError, read_stack

    settings = settings_or_exit()
    try:
        stack = read_stack(settings.home)
    except StackError as error:
        typer.echo(f"distox status: {error}", err=True)
        raise typer.Exit(1) from error
    if stack is None or not is_running(stack):
        crashed = stack is not None and bool(find_marked(stack.stack_id))
        typer.echo(
            f"the stack of {settings.home} was not shut down; `distox up` or `distox down` cleans up"
            if crashed
            else f"no stack runs in {settings.home}; start it with `distox up`"
        )
        raise typer.Exit(3)
    processes = find_marked(stack.stack_id)
    memory = sum(process.memory_info().rss for process in processes) / 1e9
    typer.echo(
        f"home     {settings.home}\nAPI      {stack.api_url}\nRay      {stack.ray_address}\nRedis    {stack.redis_url}"
    )
    typer.echo(f"store    {stack.store_url}\nstorage  {stack.storage_url}")
    typer.echo(f"{len(processes)} processes, {memory:.1f} GB resident")


def print_environment() -> None:
    """Print what a shell needs to use this stack with `ray job submit` and the Python client.

    eval "$(distox env)"
    """
    from cluster.stack_state import StackError, read_stack

    settings = settings_or_exit()
    try:
        stack = read_stack(settings.home)
    except StackError as error:
        typer.echo(f"distox env: {error}", err=True)
        raise typer.Exit(1) from error
    if stack is None or not stack.api_url:
        typer.echo(f"no stack runs in {settings.home}; start it with `distox up`", err=True)
        raise typer.Exit(3)
    values = stack.environment(settings.home)
    # `ray job submit` lets them win over RAY_ADDRESS and the token's path: another stack would be asked.
    typer.echo(f"unset RAY_API_SERVER_ADDRESS{' RAY_AUTH_TOKEN' if stack.ray_token_path else ''}")
    for name, value in values.items():
        typer.echo(f"export {name}={shlex.quote(value)}")
    typer.echo(f'export DISTOX_API_KEY="$(cat {shlex.quote(str(settings.home / "api-key"))})"')


def settings_or_exit() -> Settings:
    """The settings, or exit code 2 with what is wrong in the environment."""
    try:
        return read_settings()
    except SettingsError as error:
        typer.echo(f"distox: {error}", err=True)
        raise typer.Exit(2) from error
