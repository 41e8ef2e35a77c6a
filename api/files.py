"""Files of artifacts: which there are, and the one that was asked for.

Guarantee: only what the store names, or what lies below it, is opened; neither ``..`` nor a link leads out of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from api.schemas import ArtifactView, FileView
from cluster.results import Artifact

MAX_FILES = 1000
"""Files of an artifact that are listed; a detoxified dump may have very many parts."""


def describe(artifact: Artifact) -> ArtifactView:
    """The artifact and its files; without files when it isn't on this machine."""
    root = Path(artifact.path)
    files = [FileView(path="", num_bytes=root.stat().st_size)] if root.is_file() else list(_files(root))
    return ArtifactView(
        name=artifact.name,
        is_folder=root.is_dir(),
        file_name=root.name,
        num_files=len(files),
        num_bytes=sum(file.num_bytes for file in files),
        files=files[:MAX_FILES],
    )


def find_file(artifact: Artifact, inner: str) -> Path | None:
    """The file at the path ``inner`` below the artifact ("" for one that is a file); None when there is none."""
    root = Path(artifact.path).resolve()
    try:
        file = (root / inner).resolve()
        return file if file.is_relative_to(root) and file.is_file() else None
    except (OSError, ValueError, RuntimeError):
        # A name that is too long, holds NUL, or is a link to itself: what can't exist isn't there.
        return None


def _files(root: Path) -> Iterator[FileView]:
    """By path; links that lead out are left out."""
    inside = root.resolve()
    for folder, names, files in os.walk(root):
        names.sort()
        for name in sorted(files):
            file = Path(folder) / name
            if file.is_file() and file.resolve().is_relative_to(inside):
                yield FileView(path=file.relative_to(root).as_posix(), num_bytes=file.stat().st_size)
