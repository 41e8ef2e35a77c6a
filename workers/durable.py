"""Writes files so that they survive a power cut, and says in plain words when a disk is full.

Guarantee: when a function returns, what it wrote is on disk; when it raises, no half of a file is left.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable
from pathlib import Path

from jobs.durable import sync


class SinkError(RuntimeError):
    """The output can't be written; what was committed before is kept, and a rerun goes on from it."""


def write_durably(file: Path, data: bytes) -> None:
    """Write a file whose name nobody else uses; the folder's entry is left to ``sync_folder``.

    Raises:
        SinkError: the disk is full or fails.
    """
    try:
        with file.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise _failed(file, error) from error


def replace_durably(file: Path, chunks: Iterable[bytes], *, temporary: str) -> None:
    """Write a file that appears whole or not at all, in the place of an older one.

    Raises:
        SinkError: the disk is full or fails.
    """
    draft = file.with_name(temporary)
    try:
        with draft.open("wb") as stream:
            for chunk in chunks:
                stream.write(chunk)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(file)
    except OSError as error:
        raise _failed(draft, error) from error
    sync_folder(file.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable.

    Raises:
        SinkError: the disk fails.
    """
    try:
        sync(folder)
    except OSError as error:
        raise _failed(folder, error) from error


def _failed(file: Path, error: OSError) -> SinkError:
    if not file.is_dir():
        # A disk that can't be written to may not let go of a name either.
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return SinkError(
            f"the disk of the output folder {file.parent} is full ({error.strerror}); free some space there and submit "
            "again: nothing that was committed is lost"
        )
    return SinkError(f"{file} can't be written ({error.strerror}); check the output folder's disk and permissions")
