"""``python -m api``: serves the API of the settings' store until SIGTERM or Ctrl-C.

The port is bound before anything else, so that a taken one is said at once; the ready file is written when the first
request can be answered. It makes no store: ``distox up`` does.
"""

from __future__ import annotations

import argparse
import errno
import logging
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

import uvicorn

from api.admission import Roots
from api.app import create_app
from cluster.store import Store, StoreError
from configs.settings import Settings, SettingsError, read_settings

log = logging.getLogger("api")

BACKLOG = 128
DRAIN_SECONDS = 3
"""How long running answers may take once the end was asked for; Ctrl-C of the stack must be over within 10 s."""


class CannotServe(RuntimeError):  # noqa: N818 (said to the user as it is)
    """The address can't be used; the message says what to do."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve; the exit code: 0 after a tidy end, 1 when it can't serve, 2 when the settings are wrong."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    log.setLevel(logging.INFO)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    try:
        settings = read_settings()
        options = _parse(arguments, settings)
        with bind(options.host, options.port) as listener:
            store = _open_store(settings)
            try:
                _serve(store, settings, listener, options.host, options.ready_file)
            finally:
                store.close()
    except SettingsError as error:
        sys.stderr.write(f"api: {error}\n")
        return 2
    except (CannotServe, StoreError) as error:
        sys.stderr.write(f"api: {error}\n")
        return 1
    return 0


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises:
        CannotServe: the port is in use or not allowed, or the host is none of this machine's.
    """
    where = f"{host}:{port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise CannotServe(f"the host {host} isn't known ({error.strerror}); use --host 127.0.0.1") from error
    listener = socket.socket(family, kind, protocol)
    try:
        # A port whose last connections still linger may be taken again; one that somebody listens on may not.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        remedies = {
            errno.EADDRINUSE: "is in use; end what uses it, or set DISTOX_API_PORT to another port (0: a free one)",
            errno.EACCES: "needs more rights than this user has; use a port above 1023",
            errno.EADDRNOTAVAIL: "is no address of this machine; use --host 127.0.0.1",
        }
        raise CannotServe(f"{where} {remedies.get(error.errno or 0, f'can not be used ({error.strerror})')}") from error
    return listener


class _Server(uvicorn.Server):
    """Says when it answers."""

    def __init__(self, config: uvicorn.Config, url: str, ready_file: Path | None) -> None:
        super().__init__(config)
        self._url = url
        self._ready_file = ready_file

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then write the ready file, whole or not at all."""
        await super().startup(sockets)
        log.info("serving at %s", self._url)
        if self._ready_file is not None:
            temporary = self._ready_file.with_name(f"{self._ready_file.name}.tmp")
            temporary.write_text(f"{self._url}\n", "utf-8")
            temporary.replace(self._ready_file)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    """Leave tidily; uvicorn drains first and then passes its signal on to this."""
    raise SystemExit(0)


def _serve(store: Store, settings: Settings, listener: socket.socket, host: str, ready_file: Path | None) -> None:
    app = create_app(store, roots=Roots.of_home(settings.home, settings.storage_url))
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (shown as what answers here)
    url = f"http://{f'[{shown}]' if ':' in shown else shown}:{listener.getsockname()[1]}"
    _Server(config, url, ready_file).run(sockets=[listener])


def _open_store(settings: Settings) -> Store:
    """The store of the settings.

    Raises:
        StoreError: it can't be used, or is another one than ``DISTOX_STORE_ID`` says.
    """
    store = Store.open(settings.store_url or settings.default_store_url)
    if settings.store_id is not None and store.store_id != settings.store_id:
        store.close()
        raise StoreError(
            f"the store is {store.store_id}, but DISTOX_STORE_ID is {settings.store_id}; take both from the running "
            'stack: eval "$(distox env)"'
        )
    return store


def _parse(arguments: Sequence[str] | None, settings: Settings) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m api", description="Serve the HTTP API.")
    parser.add_argument("--host", default=settings.api_host, help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port", type=_port, default=settings.api_port, help="0 takes a free one (default: %(default)s)"
    )
    parser.add_argument("--ready-file", type=Path, help="file to write the URL into once it answers")
    return parser.parse_args(arguments)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; use one from 1 to 65535, or 0 for a free one")
    return int(text)


if __name__ == "__main__":
    raise SystemExit(main())
