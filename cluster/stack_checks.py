"""What is wrong with a configured address, said before anything is started.

It only looks: a Redis that is away, a Ray that refuses and a port that is taken each become one line with the remedy.
"""

from __future__ import annotations

import errno
import socket
import urllib.error
import urllib.request
from pathlib import Path

from cluster.stack_state import StackError
from configs.settings import Settings

RAY_SECONDS = 5.0


def check_configured(settings: Settings) -> None:
    """Look at each part that is configured elsewhere, and at the API's port.

    Raises:
        StackError: one can't be used; the message names the setting and the remedy.
    """
    if settings.redis_url is not None:
        _check_redis(settings.redis_url)
    if settings.ray_address is not None:
        _check_ray(settings.ray_address, settings.ray_token_path)
    if settings.api_port:
        _check_port(settings.api_host, settings.api_port)


def ask_ray(address: str, token_path: str | None) -> None:
    """Ask the job server for its jobs.

    Raises:
        OSError: it doesn't answer, or refuses the token; a ``urllib.error.HTTPError`` holds its code.
    """
    headers = {}
    if token_path:
        headers["Authorization"] = f"Bearer {Path(token_path).read_text('utf-8').strip()}"
    request = urllib.request.Request(f"{address.rstrip('/')}/api/jobs/", headers=headers)  # noqa: S310 (checked: http)
    with urllib.request.urlopen(request, timeout=RAY_SECONDS):  # noqa: S310
        return


def _check_redis(url: str) -> None:
    from workers.connection import Connection, QueueUnreachable

    try:
        connection = Connection(url)
        try:
            connection.check()
        finally:
            connection.close()
    except QueueUnreachable as error:
        raise StackError(f"{error} (unset DISTOX_REDIS_URL, and distox starts its own)") from error


def _check_ray(address: str, token_path: str | None) -> None:
    name = f"RAY_ADDRESS is {address}"
    remedy = "check it and the cluster, or unset it, and distox starts its own Ray"
    if not address.startswith(("http://", "https://")):
        raise StackError(f"{name}: not the http://host:port of a Ray dashboard; {remedy}")
    try:
        ask_ray(address, token_path)
    except urllib.error.HTTPError as error:
        if error.code in {401, 403}:
            if token_path is None:
                # Ray may find a token in other ways of its own; the coordinator's start says whether it did.
                return
            raise StackError(f"{name}: Ray refuses the token; set RAY_AUTH_TOKEN_PATH to the cluster's") from error
        raise StackError(f"{name}: no Ray job server (it answers {error.code}); {remedy}") from error
    except OSError as error:
        reason = getattr(error, "reason", None) or error.strerror or error
        raise StackError(f"{name}: it can't be reached ({reason}); {remedy}") from error


def _check_port(host: str, port: int) -> None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            # As the API does: a port whose last connections still linger may be taken again.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror as error:
        raise StackError(f"DISTOX_API_HOST is {host}: not known ({error.strerror}); use 127.0.0.1") from error
    except OSError as error:
        remedies = {
            errno.EADDRINUSE: "in use; end what uses it, or set DISTOX_API_PORT to another port (0: a free one)",
            errno.EACCES: "not allowed to this user; set DISTOX_API_PORT to one above 1023",
            errno.EADDRNOTAVAIL: "no address of this machine; set DISTOX_API_HOST to 127.0.0.1",
        }
        said = remedies.get(error.errno or 0, f"can't be used ({error.strerror}); set DISTOX_API_PORT")
        raise StackError(f"the API's {host}:{port} is {said}") from error
