"""Checkpoints of a training: whole tensors, each written once, to be taken up on any number of ranks and by any engine.

A checkpoint is a folder ``step-00000450-a2``: one ``rank-N.safetensors`` for each rank that wrote (ranks share the
parameters out, so that nothing is written twice) and ``checkpoint.json``, which names those files with size and
checksum and is written last, under a temporary name. A folder without it, or whose files are not as it says, is no
checkpoint: nothing half written is ever read. Because tensors are whole, ZeRO's shards included, a later attempt may
have another number of ranks, or another ZeRO stage.

Knows nothing about models or optimizers: a tensor has a name, and that is all.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from jobs.digests import sha256_of
from jobs.durable import sync

logger = logging.getLogger(__name__)

MANIFEST = "checkpoint.json"
VERSION = 1
_NAME = re.compile(r"step-(\d{8})-a(\d+)")


@dataclass(frozen=True)
class Checkpoint:
    """One that is whole."""

    folder: Path
    step: int
    """Optimizer steps made, the copy warm-up's included."""
    state: Mapping[str, Any]
    """What was given to ``commit``: plain JSON data."""
    files: Sequence[str]

    def read(self) -> dict[str, torch.Tensor]:
        """All its tensors by name, on the CPU."""
        tensors: dict[str, torch.Tensor] = {}
        for name in self.files:
            with safe_open(self.folder / name, framework="pt") as file:
                tensors |= {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no mapping)
        return tensors


def folder_of(root: Path, step: int, epoch: int) -> Path:
    """Where the attempt ``epoch`` writes its checkpoint of a step: attempts never share a folder."""
    return root / f"step-{step:08d}-a{epoch}"


def write_share(folder: Path, rank: int, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write one rank's share of the tensors, durably. Every rank does so before ``commit``."""
    folder.mkdir(parents=True, exist_ok=True)
    # Another save of the same step: until the new files are whole it is no checkpoint.
    (folder / MANIFEST).unlink(missing_ok=True)
    file = folder / f"rank-{rank}.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)
    sync(file)


def commit(folder: Path, *, step: int, state: Mapping[str, Any], num_ranks: int) -> None:
    """Make a checkpoint of the shares that all ranks have written; done by one rank, and durable when it returns."""
    files = {}
    for rank in range(num_ranks):
        file = folder / f"rank-{rank}.safetensors"
        files[file.name] = {"bytes": file.stat().st_size, "sha256": sha256_of([file])}
    text = json.dumps({"version": VERSION, "step": step, "files": files, "state": state}, indent=1)
    temporary = folder / f"{MANIFEST}.tmp"
    temporary.write_text(text + "\n", encoding="utf-8")
    sync(temporary)
    temporary.replace(folder / MANIFEST)
    sync(folder)
    sync(folder.parent)


def newest(root: Path) -> Checkpoint | None:
    """The whole checkpoint with the most steps, of the latest attempt that has one, or None.

    A damaged one is passed over with a warning.
    """
    for folder in reversed(_folders(root)):
        checkpoint = _open(folder)
        if checkpoint is not None:
            return checkpoint
    return None


def open_named(root: Path, name: str) -> Checkpoint:
    """The checkpoint of that folder name, which was whole a moment ago."""
    checkpoint = _open(root / name)
    assert checkpoint is not None, f"{name} was found by another rank"
    return checkpoint


def of_step(root: Path, step: int) -> Checkpoint | None:
    """The whole checkpoint of a step that the latest attempt wrote, or None."""
    for folder in reversed(_folders(root)):
        if _order(folder)[1] == step and (checkpoint := _open(folder)) is not None:
            return checkpoint
    return None


def prune(root: Path, *, keep: int, best: int | None = None) -> None:
    """Delete older checkpoints than the ``keep`` newest whole ones, but for that of the step ``best``."""
    whole = [folder for folder in _folders(root) if (folder / MANIFEST).is_file()]
    newest_ones = whole[-keep:]
    if not newest_ones:
        return
    kept = {*newest_ones, *(folder for folder in whole if _order(folder)[1] == best)}
    for folder in _folders(root):
        if folder not in kept and _order(folder) < _order(newest_ones[-1]):
            # Without its manifest it is no checkpoint any more, whatever else the deletion leaves.
            (folder / MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)


def _folders(root: Path) -> list[Path]:
    """Those with a checkpoint's name, oldest first."""
    if not root.is_dir():
        return []
    return sorted((folder for folder in root.iterdir() if _NAME.fullmatch(folder.name)), key=_order)


def _order(folder: Path) -> tuple[int, int]:
    """Attempt, then step: a later attempt goes on from where an earlier one was, perhaps by other steps."""
    match = _NAME.fullmatch(folder.name)
    assert match is not None, "only such folders are listed"
    return int(match[2]), int(match[1])


def _open(folder: Path) -> Checkpoint | None:
    try:
        data = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        for name, about in data["files"].items():
            file = folder / name
            if file.stat().st_size != about["bytes"] or sha256_of([file]) != about["sha256"]:
                logger.warning("%s is not what was written; an older checkpoint is taken", file)
                return None
        return Checkpoint(folder, int(data["step"]), data["state"], tuple(data["files"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning("%s can't be read (%s); an older checkpoint is taken", folder / MANIFEST, type(error).__name__)
        return None
