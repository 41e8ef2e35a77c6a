"""Who asks, and what they may: bearer keys, three roles, and one owner's runs hidden from another.

A run of somebody else is answered like one that doesn't exist, so that ids tell nothing. Roles include the ones before:
viewer reads, submitter also submits and cancels, admin sees and does it for every owner.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.errors import Problem, Refused
from api.limits import RateLimiter
from api.roles import Role
from api.schemas import RUN_ID
from cluster.records import RunNotFound
from cluster.runs import Run
from cluster.store import Store

_RANK = {role: rank for rank, role in enumerate(Role)}


@dataclass(frozen=True)
class Caller:
    """Whose key came with the request."""

    owner: str
    role: Role

    @property
    def is_admin(self) -> bool:
        """Whether the caller may see and do everything."""
        return self.role is Role.ADMIN

    def may_see(self, run: Run) -> bool:
        """Whether the run is the caller's to see."""
        return self.is_admin or run.owner == self.owner


_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="key",
    description=(
        "`Authorization: Bearer dx_…`. `distox up` writes the first key into `$DISTOX_HOME/api-key`; "
        "`distox keys create` makes others."
    ),
)


def opened_store(request: Request) -> Store:
    """The store that the application was made with."""
    store: Store = request.app.state.store
    return store


def authenticated(
    request: Request,
    store: Annotated[Store, Depends(opened_store)],
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Caller:
    """The caller whose key came with the request.

    Raises:
        Refused: there is no key, it's unknown, malformed or revoked, or it asks too often.
    """
    failures: RateLimiter = request.app.state.failures
    requests: RateLimiter = request.app.state.requests
    key = store.find_key(credentials.credentials) if credentials is not None else None
    if key is None or key.role not in list(Role):
        # After the look-up: bad keys of one process never lock out the good key of another on the same address.
        _check_rate(failures, request.client.host if request.client is not None else "")
        detail = (
            "send the header Authorization: Bearer dx_…"
            if credentials is None
            else "the key is unknown, malformed or revoked; check it, or ask an admin for another"
        )
        raise Refused(Problem.UNAUTHENTICATED, detail, headers={"WWW-Authenticate": 'Bearer realm="distox"'})
    _check_rate(requests, key.prefix)
    return Caller(key.owner, Role(key.role))


def require(role: Role) -> Callable[[Caller], Caller]:
    """A dependency that lets only callers of this role or a higher one pass."""

    def check(caller: Annotated[Caller, Depends(authenticated)]) -> Caller:
        if _RANK[caller.role] < _RANK[role]:
            raise Refused(Problem.FORBIDDEN, f"this needs the role {role}, and the key has the role {caller.role}")
        return caller

    return check


OpenedStore = Annotated[Store, Depends(opened_store)]
Viewer = Annotated[Caller, Depends(require(Role.VIEWER))]
Submitter = Annotated[Caller, Depends(require(Role.SUBMITTER))]


def visible_run(store: Store, caller: Caller, run_id: str) -> Run:
    """The run, when it exists and is the caller's to see.

    Raises:
        RunNotFound: it isn't.
    """
    if re.fullmatch(RUN_ID, run_id) is None:
        raise RunNotFound(run_id[:40])
    run = store.get(run_id)
    if not caller.may_see(run):
        raise RunNotFound(run_id)
    return run


def _check_rate(limiter: RateLimiter, who: str) -> None:
    wait_seconds = limiter.take(who)
    if wait_seconds > 0:
        seconds = max(1, round(wait_seconds))
        detail = f"at most {limiter.per_minute} a minute; try again in {seconds} s"
        raise Refused(Problem.TOO_MANY, detail, headers={"Retry-After": str(seconds)})
