"""SHA-256 of files: what tells one model's weights from another's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin", "model.bin")
"""Weights of Transformers and of CTranslate2."""

_CHUNK_BYTES = 1 << 20


def sha256_of(paths: Iterable[Path]) -> str:
    """One SHA-256 over the files' bytes, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()


def weights_sha256(folder: Path) -> str | None:
    """Of the weight files of a model's folder; None where there is none, and for what is no folder."""
    files = {path for pattern in WEIGHT_FILES for path in folder.glob(pattern)} if folder.is_dir() else set()
    return sha256_of(files) if files else None
