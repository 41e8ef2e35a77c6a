"""The environment, read in one place and nowhere else.

``DISTOX_HOME`` is made absolute at once. Inside a Ray job the working directory is a temporary copy, so a default that
is relative to it is refused there: the stack puts absolute values into the environment that jobs inherit.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


class SettingsError(ValueError):
    """The environment lacks something, or contradicts itself; the message says what to set."""


@dataclass(frozen=True)
class Settings:
    """Where things are. URLs are None when distox starts its own."""

    home: Path
    """Absolute; the state folder."""
    redis_url: str | None
    """``redis://``, ``rediss://`` or ``unix://``."""
    ray_address: str | None
    """The dashboard's ``http://host:port`` (what ``ray job submit`` takes)."""
    store_url: str | None
    """An SQLAlchemy URL: ``sqlite:///…`` or ``postgresql+psycopg://…``."""
    storage_url: str
    """Folder (or fsspec URL) that holds artifacts and parts."""
    api_url: str | None
    api_host: str
    api_port: int
    """0 takes a free port."""
    api_key: str | None
    store_id: str | None
    """The identity that the store must have; another one there ends an attempt."""
    ray_submission_id: str | None
    """Of the Ray job that this process runs in; None elsewhere."""

    @property
    def runtime_folder(self) -> Path:
        """A short private folder for sockets and Ray's temporary files: a socket path has at most 107 bytes."""
        digest = hashlib.sha256(str(self.home).encode()).hexdigest()[:8]
        return Path(tempfile.gettempdir()) / f"dx{os.getuid()}-{digest}"

    @property
    def default_store_url(self) -> str:
        """The store of the home, when no other is named."""
        return f"sqlite:///{self.home / 'store.sqlite'}"


def read_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings.

    Raises:
        SettingsError: inside a Ray job without the absolute values that jobs must inherit, or a port that is no number.
    """
    env = os.environ if environment is None else environment
    submission_id = _ray_submission_id(env)
    missing = [name for name in ("DISTOX_HOME", "DISTOX_STORE_URL", "DISTOX_STORAGE_URL") if not env.get(name)]
    if submission_id is not None and missing:
        raise SettingsError(
            f"{', '.join(missing)} not set inside a Ray job; start the cluster with `distox up`, or pass them with "
            "`ray job submit --runtime-env-json '{\"env_vars\": {…}}'`"
        )
    home = Path(env.get("DISTOX_HOME") or ".distox").expanduser()
    if submission_id is not None and not home.is_absolute():
        raise SettingsError(f"DISTOX_HOME is {home}, which is relative; inside a Ray job it must be absolute")
    home = home.absolute()
    port = env.get("DISTOX_API_PORT") or "0"
    if not port.isdigit() or int(port) > 65535:
        raise SettingsError(f"DISTOX_API_PORT is {port!r}; use a port from 1 to 65535, or 0 for a free one")
    return Settings(
        home=home,
        redis_url=env.get("DISTOX_REDIS_URL") or None,
        ray_address=env.get("RAY_ADDRESS") or None,
        store_url=env.get("DISTOX_STORE_URL") or None,
        storage_url=env.get("DISTOX_STORAGE_URL") or str(home / "storage"),
        api_url=env.get("DISTOX_API_URL") or None,
        api_host=env.get("DISTOX_API_HOST") or "127.0.0.1",
        api_port=int(port),
        api_key=env.get("DISTOX_API_KEY") or None,
        store_id=env.get("DISTOX_STORE_ID") or None,
        ray_submission_id=submission_id,
    )


def _ray_submission_id(env: Mapping[str, str]) -> str | None:
    """The submission id of the surrounding Ray job, which Ray hands over as a JSON text."""
    config = env.get("RAY_JOB_CONFIG_JSON_ENV_VAR")
    if not config:
        return None
    metadata = json.loads(config).get("metadata") or {}
    value = metadata.get("job_submission_id")
    return str(value) if value else None
