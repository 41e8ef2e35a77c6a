"""The environment, read in one place and nowhere else.

Local places (``DISTOX_HOME``, the storage, a SQLite store) are made absolute at once. Inside a Ray job the working
directory is a temporary copy, so a place that is relative to it, or missing and would be, is refused there: the stack
puts absolute values into the environment that jobs inherit. A variable that is set to nothing counts as not set.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MAX_RUNTIME_BYTES = 38
"""A socket path has at most 107 bytes, and Ray puts up to 69 below its folder."""

SQLITE = "sqlite:///"


class SettingsError(ValueError):
    """The environment lacks something, or contradicts itself; the message says what to set."""


@dataclass(frozen=True)
class Settings:
    """Where things are. URLs are None when distox starts its own."""

    home: Path
    """Absolute, without symbolic links, so that one folder has one name; the state folder."""
    redis_url: str | None
    """``redis://``, ``rediss://`` or ``unix://``."""
    ray_address: str | None
    """The dashboard's ``http://host:port`` (what ``ray job submit`` takes)."""
    ray_token_path: str | None
    """The file with the token that the Ray cluster wants."""
    store_url: str | None
    """An SQLAlchemy URL: ``sqlite:///…`` or ``postgresql+psycopg://…``."""
    storage_url: str
    """Absolute folder (or fsspec URL) that holds artifacts and parts."""
    api_url: str | None
    """Where clients find the API."""
    api_host: str
    """Address that the API listens on."""
    api_port: int
    """0 takes a free port."""
    api_key: str | None
    """What clients show the API."""
    store_id: str | None
    """The identity that the store must have; another one there ends an attempt."""
    ray_submission_id: str | None
    """Of the Ray job that this process runs in; None elsewhere."""

    @property
    def runtime_folder(self) -> Path:
        """A folder for sockets and Ray's temporary files: short however long the home is, another one for each home."""
        digest = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:8]
        name = f"dx{os.getuid()}-{digest}"
        folder = Path(tempfile.gettempdir()) / name
        if len(os.fsencode(folder)) <= MAX_RUNTIME_BYTES:
            return folder
        return Path("/tmp") / name  # noqa: S108 (who uses it checks its owner)

    @property
    def is_own_ray(self) -> bool:
        """Whether the Ray that the environment names is the head of this home's own stack, running or ended."""
        return self.ray_token_path == str(self.home / "ray-token")

    @property
    def default_store_url(self) -> str:
        """The store of the home, when no other is named."""
        return f"sqlite:///{self.home / 'store.sqlite'}"


def read_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings.

    Raises:
        SettingsError: inside a Ray job without the absolute values that jobs must inherit, a port that is no number, or
            a home of a user that there is not.
    """
    env = os.environ if environment is None else environment
    submission_id = _ray_submission_id(env)
    missing = [name for name in ("DISTOX_HOME", "DISTOX_STORE_URL", "DISTOX_STORAGE_URL") if not env.get(name)]
    if submission_id is not None and missing:
        raise SettingsError(
            f"{', '.join(missing)} not set inside a Ray job; start the cluster with `distox up`, or pass them with "
            "`ray job submit --runtime-env-json '{\"env_vars\": {…}}'`"
        )
    home = _home(env.get("DISTOX_HOME") or ".distox")
    storage_url = env.get("DISTOX_STORAGE_URL") or str(home / "storage")
    store_url = env.get("DISTOX_STORE_URL") or None
    given = {"DISTOX_HOME": env.get("DISTOX_HOME"), "DISTOX_STORAGE_URL": storage_url, "DISTOX_STORE_URL": store_url}
    relative = [f"{name} is {value}" for name, value in given.items() if value and _is_relative(value)]
    if submission_id is not None and relative:
        raise SettingsError(f"{'; '.join(relative)}: relative; inside a Ray job it must be absolute")
    return Settings(
        home=home,
        redis_url=env.get("DISTOX_REDIS_URL") or None,
        ray_address=env.get("RAY_ADDRESS") or None,
        ray_token_path=env.get("RAY_AUTH_TOKEN_PATH") or None,
        store_url=_absolute(store_url) if store_url else None,
        storage_url=_absolute(storage_url),
        api_url=env.get("DISTOX_API_URL") or None,
        api_host=env.get("DISTOX_API_HOST") or "127.0.0.1",
        api_port=_port(env.get("DISTOX_API_PORT") or "0"),
        api_key=env.get("DISTOX_API_KEY") or None,
        store_id=env.get("DISTOX_STORE_ID") or None,
        ray_submission_id=submission_id,
    )


def _home(value: str) -> Path:
    try:
        return Path(os.path.realpath(Path(value).expanduser()))
    except RuntimeError as error:
        raise SettingsError(f"DISTOX_HOME is {value!r}: {error}; write the folder out") from None


def _port(value: str) -> int:
    if not (value.isascii() and value.isdigit() and int(value) <= 65535):
        raise SettingsError(f"DISTOX_API_PORT is {value!r}; use a port from 1 to 65535, or 0 for a free one")
    return int(value)


def _is_relative(place: str) -> bool:
    path = _local_path(place)
    return path is not None and not Path(path).expanduser().is_absolute()


def _absolute(place: str) -> str:
    """A local place with its path made absolute; other URLs as they are."""
    path = _local_path(place)
    if path is None:
        return place
    absolute = str(Path(path).expanduser().absolute())
    return f"{SQLITE}{absolute}" if place.startswith(SQLITE) else absolute


def _local_path(place: str) -> str | None:
    """The path of a folder or of a SQLite URL; None for what is elsewhere, or in memory."""
    if place.startswith(SQLITE):
        path = place.removeprefix(SQLITE)
        return path if path and not path.startswith((":memory:", "file:")) else None
    return None if "://" in place else place


def _ray_submission_id(env: Mapping[str, str]) -> str | None:
    """The submission id of the surrounding Ray job, which Ray hands over as a JSON text."""
    config = env.get("RAY_JOB_CONFIG_JSON_ENV_VAR")
    if not config:
        return None
    try:
        value = (json.loads(config).get("metadata") or {}).get("job_submission_id")
    except (ValueError, AttributeError) as error:
        raise SettingsError(f"RAY_JOB_CONFIG_JSON_ENV_VAR is not what Ray writes ({error}); unset it") from None
    return str(value) if value else None
