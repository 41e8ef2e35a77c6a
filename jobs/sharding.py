"""DeepSpeed: its config by name, the check that it can start, and whole weights out of sharded ones.

Knows nothing about losses or data. ZeRO needs a C++ compiler even on CPU: it builds its communication kernel at first
use.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.utils.cpp_extension import get_cxx_compiler

from jobs.ranks import rank

logger = logging.getLogger(__name__)

CONFIG_FOLDER = Path(__file__).parent.parent / "configs" / "deepspeed"
"""Holds a JSON file for each name in ``configs.schema.training.ZERO_STAGES``."""

OURS = ("optimizer", "scheduler")
"""Parts of a DeepSpeed file that the spec's training section says already."""


class ShardingError(ValueError):
    """DeepSpeed can't be used here; the message says what to install or to leave out."""


def check_deepspeed() -> None:
    """Raise unless DeepSpeed could build its kernels here; builds nothing.

    Raises:
        ShardingError: no C++ compiler or no ninja on the PATH.
    """
    compiler = str(get_cxx_compiler())  # type: ignore[no-untyped-call]
    missing = [
        what
        for command, what in ((compiler, f"a C++ compiler (g++; looked for {compiler!r})"), ("ninja", "ninja"))
        if shutil.which(command) is None
    ]
    if missing:
        raise ShardingError(
            f"training.deepspeed needs {' and '.join(missing)} to build its communication kernel, and the PATH has "
            "none; install g++ and ninja, or remove training.deepspeed"
        )


def load_deepspeed_config(name: str) -> dict[str, Any]:
    """The DeepSpeed settings that ``training.deepspeed`` names, or those of a JSON file.

    Optimizer and scheduler are left out, with a warning: the spec's training section says them. An offloaded optimizer
    stays torch's AdamW, which steps on a CPU as it does on a GPU: DeepSpeed's own would be another one to build, and to
    take checkpoints up by.

    Raises:
        ShardingError: no such name or file, or no JSON object in it.
    """
    named = CONFIG_FOLDER / f"{name}.json"
    path = named if named.is_file() else Path(name).expanduser()
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        names = ", ".join(sorted(file.stem for file in CONFIG_FOLDER.glob("*.json")))
        raise ShardingError(
            f"training.deepspeed is {name!r}, which can't be read ({error.strerror}); use one of {names}, or the path "
            "of a JSON file"
        ) from None
    except ValueError as error:
        raise ShardingError(f"training.deepspeed: {path} is not JSON ({error}); correct it") from None
    if not isinstance(config, dict):
        raise ShardingError(f"training.deepspeed: {path} holds no JSON object; correct it")
    for key in OURS:
        if config.pop(key, None) is not None:
            logger.warning("%s in %s is ignored: the spec's training section decides", key, path)
    if config.pop("zero_force_ds_cpu_optimizer", False):
        logger.warning("zero_force_ds_cpu_optimizer in %s is ignored: AdamW is torch's wherever it steps", path)
    return {**config, "zero_force_ds_cpu_optimizer": False}


def join_alone() -> None:
    """Start a process group of one where there is none: DeepSpeed would look for an MPI launcher otherwise."""
    if not distributed.is_initialized():
        # DeepSpeed refuses to start without it, though it asks torch for the rank.
        os.environ.setdefault("LOCAL_RANK", "0")
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        store = distributed.HashStore()  # type: ignore[attr-defined]
        distributed.init_process_group(backend, store=store, rank=0, world_size=1)


def gather_weights(model: torch.nn.Module, *, sharded: bool) -> dict[str, torch.Tensor]:
    """The model's whole weights in fp32 on the CPU, by name; empty on every rank but 0. Tied weights stay one tensor.

    With ``sharded``, a collective: the fp32 masters are collected from all ranks, one parameter at a time.
    """
    weights: dict[str, torch.Tensor] = {}
    seen: dict[int, torch.Tensor] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if id(parameter) not in seen:
            whole = _collect(name, parameter) if sharded else parameter
            kept = whole.detach() if rank() == 0 else torch.empty(0)
            seen[id(parameter)] = kept.to(device="cpu", dtype=torch.float32)
        if rank() == 0:
            weights[name] = seen[id(parameter)]
    return weights


def _collect(name: str, parameter: torch.nn.Parameter) -> torch.Tensor:
    from deepspeed.utils import safe_get_full_fp32_param

    value: torch.Tensor | None = safe_get_full_fp32_param(parameter)
    assert value is not None, f"{name} is not in the optimizer"
    return value
