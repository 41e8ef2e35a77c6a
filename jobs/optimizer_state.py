"""What an AdamW knows of each parameter, whole: weight in fp32 and two moments, whichever engine keeps them.

Plain torch keeps all of it on every rank; ZeRO keeps a shard of it on each. Here it is collected one parameter at a
time, so that no rank holds more than its share of the whole; it is restored from the whole, which every rank has read.
A parameter that two modules share is one.

Knows nothing about files or steps of a training; ``num_steps`` is AdamW's own count, which its bias correction needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from jobs.ranks import rank, world_size

MOMENTS = ("exp_avg", "exp_avg_sq")
"""AdamW's running means of the gradient and of its square (Kingma and Ba 2015, arXiv 1412.6980, algorithm 1)."""
WEIGHT = "weight"


def collect_share(model: torch.nn.Module, optimizer: Any, *, sharded: bool) -> dict[str, torch.Tensor]:
    """This rank's share of the tensors, as ``{kind}/{parameter}`` on the CPU; a collective.

    The ranks take turns, so that every tensor is on exactly one.
    """
    if sharded:
        _link_states(optimizer)
    read = _read_sharded if sharded else _read_plain(optimizer)
    share: dict[str, torch.Tensor] = {}
    for number, (name, parameter) in enumerate(model.named_parameters()):
        for kind in (WEIGHT, *MOMENTS):
            value = read(parameter, kind)
            if number % world_size() == rank():
                share[f"{kind}/{name}"] = value.detach().to("cpu", torch.float32, copy=True)
    return share


def restore(
    model: torch.nn.Module, optimizer: Any, tensors: Mapping[str, torch.Tensor], *, num_steps: int, sharded: bool
) -> None:
    """Give the optimizer the moments, and ZeRO its fp32 weights, of tensors named as ``collect_share`` names them.

    The weights of the model itself were loaded before any engine wrapped it.
    """
    base = _layers(optimizer)[-1]
    for group in base.param_groups:
        for parameter in group["params"] or ():
            base.state[parameter] = _new_state(parameter, num_steps)
    if sharded:
        _link_states(optimizer)
        _restore_sharded(model, base, tensors, num_steps)
        return
    for name, parameter in model.named_parameters():
        for kind in MOMENTS:
            base.state[parameter][kind].copy_(tensors[f"{kind}/{name}"])


def _new_state(parameter: torch.Tensor, num_steps: int) -> dict[str, torch.Tensor]:
    state = {kind: torch.zeros_like(parameter, dtype=torch.float32).detach() for kind in MOMENTS}
    # The fused AdamW wants its count beside the parameter.
    return {"step": torch.tensor(float(num_steps), device=parameter.device), **state}


def _read_plain(optimizer: Any) -> Callable[[torch.nn.Parameter, str], torch.Tensor]:
    base = _layers(optimizer)[-1]

    def read(parameter: torch.nn.Parameter, kind: str) -> torch.Tensor:
        value: torch.Tensor = parameter if kind == WEIGHT else base.state[parameter][kind]
        return value

    return read


def _layers(optimizer: Any) -> list[Any]:
    """The optimizer and what it wraps, down to torch's own."""
    layers = [optimizer]
    while hasattr(layers[-1], "optimizer"):
        layers.append(layers[-1].optimizer)
    return layers


def _link_states(optimizer: Any) -> None:
    """Let ZeRO-1 and -2 find the moments of every parameter.

    DeepSpeed 0.19 does so once, after the first step of the first group, when the other groups have no moments yet.
    """
    for zero in _layers(optimizer):
        if hasattr(zero, "_lazy_init_hp_params_optimizer_state"):
            zero._hp_optimizer_states_linked = False
            zero._lazy_init_hp_params_optimizer_state()


def _read_sharded(parameter: torch.nn.Parameter, kind: str) -> torch.Tensor:
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    value: torch.Tensor | None = (
        safe_get_full_fp32_param(parameter) if kind == WEIGHT else safe_get_full_optimizer_state(parameter, kind)
    )
    assert value is not None, "every parameter of the student is in the optimizer"
    return value


def _restore_sharded(model: torch.nn.Module, base: Any, tensors: Mapping[str, torch.Tensor], num_steps: int) -> None:
    from deepspeed.utils import (
        safe_set_full_fp32_param,
        safe_set_full_optimizer_state,
        safe_set_local_fp32_param,
        safe_set_local_optimizer_state,
    )

    for name, parameter in model.named_parameters():
        zero3 = getattr(parameter, "_z3_optimizer", None)
        for flat in () if zero3 is None else zero3.fp32_partitioned_groups_flat:
            if not base.state[flat]:
                base.state[flat] = _new_state(flat, num_steps)
        for kind in (WEIGHT, *MOMENTS):
            value = tensors[f"{kind}/{name}"].to(parameter.device)
            if zero3 is not None:
                # The whole-value setter doesn't know that a shard may be padded.
                shard = _shard_of(value, parameter)
                if kind == WEIGHT:
                    safe_set_local_fp32_param(parameter, shard)
                else:
                    safe_set_local_optimizer_state(parameter, shard, kind)
            elif kind == WEIGHT:
                safe_set_full_fp32_param(parameter, value)
            else:
                safe_set_full_optimizer_state(parameter, value, kind)


def _shard_of(value: torch.Tensor, parameter: torch.nn.Parameter) -> torch.Tensor:
    """This rank's part of a whole tensor, padded with zeros as ZeRO-3 pads."""
    from deepspeed.utils import safe_get_local_fp32_param

    size = safe_get_local_fp32_param(parameter).numel()
    padded = torch.nn.functional.pad(value.flatten(), (0, size * world_size() - value.numel()))
    return padded[size * rank() : size * (rank() + 1)]
