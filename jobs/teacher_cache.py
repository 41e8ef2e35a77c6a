"""A teacher's states on disk: each row's once, for every epoch and every run that shares the folder.

A file holds the states of some rows and the hashes of those rows, and is named by its own SHA-256. It is written under
a temporary name and renamed when it is whole and durable, so that a file of that name either is what was written or is
found out: what doesn't match its name is removed with a warning, and its rows are made again. Nobody waits for anybody:
two runs that make the same rows at once leave two files, and either is right. States are memory-mapped when they are
read. A folder may be deleted whenever no run reads it.

Knows nothing about models or ranks: a row has a hash, and that is all.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from jobs.digests import sha256_of
from jobs.durable import sync

logger = logging.getLogger(__name__)

SUFFIX = ".safetensors"
STATES, ENDS, HASHES = "states", "ends", "hashes"
"""(N, D): of all rows, one after another; (R,): where in it each row ends; (R, 32): SHA-256 of each row."""
LEFT_BEHIND_SECONDS = 86_400.0
"""A temporary file this old has no writer any more: writing one takes seconds."""

RowHash = bytes


class StatesLost(RuntimeError):  # noqa: N818 (named for what happened)
    """States that were written aren't there; the message says why that may be."""


class StateCache:
    """The states of one teacher by the hash of a row.

    Args:
        folder: this teacher's alone; made when something is added.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: list[torch.Tensor] = []
        self._places: dict[RowHash, tuple[int, int, int]] = {}

    def __contains__(self, row: RowHash) -> bool:
        return row in self._places

    def __getitem__(self, row: RowHash) -> torch.Tensor:
        """The states of an open row, (N, D) on the CPU; a view of the mapped file.

        Raises:
            StatesLost: it isn't open.
        """
        if row not in self._places:
            raise self._lost()
        file, start, end = self._places[row]
        return self._files[file][start:end]

    def find(self, wanted: Collection[RowHash]) -> list[str]:
        """Names of the whole files that hold wanted rows which are not open yet; damaged ones are removed."""
        missing = {row for row in wanted if row not in self._places}
        names = []
        for file in sorted(self._folder.glob(f"*{SUFFIX}")):
            try:
                held = missing.intersection(_read_rows(file))
                is_whole = not held or sha256_of([file]) == file.stem
            except FileNotFoundError:
                continue
            except (SafetensorError, ValueError):
                is_whole = False
            if not is_whole:
                logger.warning("%s is not what was written; its rows are made again", file)
                file.unlink(missing_ok=True)
            elif held:
                missing -= held
                names.append(file.name)
        return names

    def open(self, names: Iterable[str]) -> None:
        """Map files that ``find`` has named, here or on another rank.

        Raises:
            StatesLost: one isn't there.
        """
        for name in names:
            try:
                with safe_open(self._folder / name, framework="pt") as file:
                    states, ends = file.get_tensor(STATES), file.get_tensor(ENDS).tolist()
            except FileNotFoundError:
                raise self._lost() from None
            number = len(self._files)
            self._files.append(states)
            starts = [0, *ends[:-1]]
            for row, start, end in zip(_read_rows(self._folder / name), starts, ends, strict=True):
                self._places[row] = (number, start, end)

    def add(self, states: Mapping[RowHash, torch.Tensor]) -> None:
        """Write the states of some rows as one file, whole and durable when this returns; they are not open yet."""
        if not states:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        self._remove_left_behind()
        counts = torch.tensor([part.shape[0] for part in states.values()])
        tensors = {
            STATES: torch.cat(list(states.values())),
            ENDS: counts.cumsum(0),
            HASHES: torch.frombuffer(bytearray(b"".join(states)), dtype=torch.uint8).view(len(states), -1),
        }
        temporary = self._folder / f"{uuid.uuid4().hex}.tmp"
        try:
            save_file(tensors, temporary)
            sync(temporary)
            temporary.rename(self._folder / f"{sha256_of([temporary])}{SUFFIX}")
        finally:
            temporary.unlink(missing_ok=True)
        sync(self._folder)

    def _lost(self) -> StatesLost:
        return StatesLost(
            f"teacher_cache: states are missing in {self._folder}; give all nodes one shared folder "
            "(teacher_cache.folder), and delete none while a run uses it"
        )

    def _remove_left_behind(self) -> None:
        for file in self._folder.glob("*.tmp"):
            try:
                age = time.time() - file.stat().st_mtime
            except FileNotFoundError:
                continue
            if age > LEFT_BEHIND_SECONDS:
                file.unlink(missing_ok=True)


def _read_rows(file: Path) -> list[RowHash]:
    with safe_open(file, framework="pt") as opened:
        hashes = opened.get_tensor(HASHES)
    return [bytes(row) for row in hashes.numpy()]
