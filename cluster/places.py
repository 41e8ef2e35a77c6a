"""Whether the processes of a cluster can all reach the store, Redis and the files that the settings name.

A stack of distox's own serves on the loopback address only, so it has one node and is never asked. Knows what a place
looks like, not whether anything answers there.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

from configs.settings import SQLITE, Settings


class PlaceError(ValueError):
    """A place is on one machine and the cluster on several; the message says which setting to change."""


def check_places(settings: Settings, addresses: Collection[str]) -> str | None:
    """See whether each node finds the same store, Redis and files.

    Args:
        settings: the places.
        addresses: of the living nodes; several nodes of one machine share one.

    Returns:
        What must hold and can't be seen from here, to be said to the user; None when there is nothing to say.

    Raises:
        PlaceError: a SQLite store or a Unix socket on a cluster of several machines.
    """
    num_machines = len(set(addresses))
    if num_machines < 2:
        return None
    store_url = settings.store_url or settings.default_store_url
    faults = []
    if store_url.startswith(SQLITE):
        faults.append(f"DISTOX_STORE_URL = {store_url}: set it to postgresql+psycopg://user:password@host/database")
    if settings.redis_url is not None and settings.redis_url.startswith("unix:"):
        faults.append(f"DISTOX_REDIS_URL = {settings.redis_url}: set it to redis://host:port/0")
    if faults:
        raise PlaceError(f"the cluster has {num_machines} machines, and they can't share {'; nor '.join(faults)}")
    if "://" not in settings.storage_url:
        return f"DISTOX_STORAGE_URL = {settings.storage_url} must be one shared folder on all {num_machines} machines"
    return None


def check_cluster(settings: Settings) -> str | None:
    """``check_places`` for the cluster that this Ray job runs on; nothing is asked where nothing could be wrong.

    Raises:
        PlaceError: see ``check_places``.
    """
    if settings.ray_submission_id is None or settings.is_own_ray:
        return None
    import ray

    ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
    try:
        nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        return check_places(settings, [str(node["NodeManagerAddress"]) for node in nodes if node["Alive"]])
    finally:
        ray.shutdown()
