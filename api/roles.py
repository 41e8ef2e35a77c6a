"""What a key of the API may do. Imports nothing: the command line knows the roles without the server's packages."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """What a key may do; each role may also do what the ones before it may."""

    VIEWER = "viewer"
    """Reads the runs of its owner."""
    SUBMITTER = "submitter"
    """Submits and cancels them too."""
    ADMIN = "admin"
    """Does so for every owner, and may name any path in a spec."""
