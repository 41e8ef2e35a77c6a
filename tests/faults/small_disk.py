"""A disk that is full soon: a tmpfs of some hundred kilobytes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

BALLAST = "ballast"


@contextmanager
def small_disk(folder: Path, *, kilobytes: int, free_kilobytes: int) -> Iterator[Path]:
    """Mount a disk on a new folder; all but ``free_kilobytes`` of it are taken by one file, which ``free`` deletes.

    Where this user may not mount, the test is skipped.
    """
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k,mode=700", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not mount a disk of its own (run the tests as root)")
    try:
        (folder / BALLAST).write_bytes(os.urandom(1024 * (kilobytes - free_kilobytes)))
        yield folder
    finally:
        # Lazily: a process that was just ended may still be on its way out.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def free(disk: Path) -> None:
    """What somebody does who reads that the disk is full."""
    (disk / BALLAST).unlink()
