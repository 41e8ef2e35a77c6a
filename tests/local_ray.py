"""A small Ray cluster of the test process's own."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def local_ray(num_cpus: int = 2) -> Iterator[Any]:
    """Start Ray on this machine and end it again, with a token that nobody else knows."""
    import ray

    # Short: Ray's sockets lie below it, and their paths have at most 107 bytes.
    folder = tempfile.mkdtemp(prefix="dxray-", dir="/tmp")
    names = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")
    before = {name: os.environ.pop(name, None) for name in names}
    # Without a mode, ray.init turns tokens on; a mode that is set after ray was imported is seen by its children only.
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    try:
        ray.init(
            address="local",
            num_cpus=num_cpus,
            object_store_memory=100_000_000,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=folder,
        )
        yield ray
    finally:
        ray.shutdown()
        for name in names:
            os.environ.pop(name, None)
            if (value := before[name]) is not None:
                os.environ[name] = value
        shutil.rmtree(folder, ignore_errors=True)
