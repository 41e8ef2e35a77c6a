"""The version of distox that runs."""

from __future__ import annotations

from functools import cache
from importlib import metadata


@cache
def version() -> str:
    """As ``0.1.0``; ``0+source`` when it runs from a checkout that isn't installed."""
    try:
        return metadata.version("distox")
    except metadata.PackageNotFoundError:
        return "0+source"
