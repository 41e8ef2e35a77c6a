"""Whether the API can answer."""

from __future__ import annotations

import logging

from fastapi import APIRouter, Response

from api.auth import OpenedStore
from api.schemas import HealthView
from api.version import version
from cluster.store import StoreError

log = logging.getLogger(__name__)

router = APIRouter(tags=["health"])


@router.get(
    "/health",
    summary="Is the API up?",
    responses={503: {"model": HealthView, "description": "The results store can't be read."}},
)
def health(store: OpenedStore, response: Response) -> HealthView:
    """Needs no key. 200 when the results store can be read, 503 when it can't."""
    try:
        store.list(limit=1)
    except StoreError as error:
        log.warning("health: %s", error)
        response.status_code = 503
        return HealthView(status="unavailable", store="unreachable", version=version())
    return HealthView(status="ok", store="ok", version=version())
