"""The ``distox`` command: every sub-command, and nothing that is heavy to import.

Guarantee: ``distox validate`` answers in under a second, because torch, ray, redis and the database are loaded by the
functions that need them. Exit codes are the same everywhere, see ``EXIT_CODES``.
"""

from __future__ import annotations

import typer

from api.cli import checks, detoxify, export, keys, quickstart, results, runs, stack

EXIT_CODES = "Exit codes: 0 done, 1 failed, 2 wrong spec or usage, 3 nothing answers, 130 cancelled or interrupted."

app = typer.Typer(
    name="distox",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    # A traceback may show local variables, and with them comment text or a key.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EXIT_CODES,
)


@app.callback()
def distox() -> None:
    """Distil a strong detoxification model into a small one, and put it to work on comments.

    ```
    distox quickstart       # the whole road, in minutes
    distox up               # start the stack; down ends it
    distox validate SPEC    # is this spec right?
    distox submit SPEC      # run it and watch
    distox list             # what runs, what ran
    ```
    """


for module in (quickstart, stack, checks, runs, detoxify, export, results, keys):
    module.register(app)

if __name__ == "__main__":
    app()
