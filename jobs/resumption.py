"""How a training saves itself and is taken up: what stands between the trainer and the files of ``jobs.checkpoints``.

Guarantee: a training that is taken up goes on as if it had never ended: same rows, same dropout, same moments, same
learning rate. With another number of ranks, or another batch, a step has another size; then it goes on at the same
share of its way, with rows that it may have seen in this epoch already.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jobs import checkpoints
from jobs.checkpoints import Checkpoint
from jobs.optimizer_state import WEIGHT, collect_share, restore
from jobs.ranks import from_rank_0, rank, wait_for_ranks, world_size
from jobs.schedule import Phases


@dataclass(frozen=True)
class Resumption:
    """Where an earlier attempt had come to, in memory."""

    tensors: Mapping[str, torch.Tensor]
    """As ``collect_share`` names them, of all ranks."""
    num_steps: int
    """That the optimizer had made."""
    first_step: int
    """Steps of this attempt's plan that are left out."""
    evaluations: Mapping[int, dict[str, float]]
    """Step on pairs → the figures of the evaluation made there."""

    def load_weights(self, model: torch.nn.Module) -> None:
        """Put the weights into a model that no engine has wrapped yet."""
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(self.tensors[f"{WEIGHT}/{name}"])


def take_up(root: Path | None, *, phases: Phases, rows_per_step: int) -> Resumption | None:
    """The newest whole checkpoint below ``root``, read into memory; None where there is none. A collective."""
    if root is None:
        return None
    newest = checkpoints.newest(root) if rank() == 0 else None
    name = from_rank_0(None if newest is None else newest.folder.name)
    if name is None:
        return None
    found = checkpoints.open_named(root, name)
    evaluations = {int(step): dict(figures) for step, figures in found.state["evaluations"].items()}
    return Resumption(found.read(), found.step, _first_step(found, phases, rows_per_step), evaluations)


def _first_step(found: Checkpoint, phases: Phases, rows_per_step: int) -> int:
    """The same number of steps where the plan is the same, else the same share of the phase."""
    if found.state["plan"] == plan_of(phases, rows_per_step):
        return found.step
    before: dict[str, int] = found.state["plan"]
    done = found.step - before["copy_steps"]
    if done <= 0:
        return min(found.step, phases.copy_steps)
    share = done / before["pair_steps"]
    return min(phases.copy_steps + round(share * phases.pair_steps), phases.num_steps - 1)


def plan_of(phases: Phases, rows_per_step: int) -> dict[str, int]:
    """What must be the same for a training to be taken up at the very step."""
    return {"rows_per_step": rows_per_step, "copy_steps": phases.copy_steps, "pair_steps": phases.pair_steps}


class Checkpointer:
    """Writes checkpoints at the border of a step.

    Args:
        root: shared by the attempts of a run.
        epoch: the attempt's number.
        keep: how many are left.
        sharded: whether ZeRO holds the state.
        plan: of this attempt's steps.
    """

    def __init__(self, root: Path, *, epoch: int, keep: int, sharded: bool, plan: Mapping[str, int]) -> None:
        self._root, self._epoch, self._keep, self._sharded, self._plan = root, epoch, keep, sharded, plan

    def save(
        self,
        model: torch.nn.Module,
        optimizer: Any,
        *,
        step: int,
        evaluations: Mapping[int, Mapping[str, float]],
        best: int | None,
    ) -> None:
        """Write the state after ``step`` steps; a collective. It is a checkpoint, or nothing, when this returns.

        The checkpoint of the step ``best`` is left beside the newest ones.
        """
        folder = checkpoints.folder_of(self._root, step, self._epoch)
        checkpoints.write_share(folder, rank(), collect_share(model, optimizer, sharded=self._sharded))
        wait_for_ranks()
        if rank() == 0:
            state = {"plan": self._plan, "evaluations": {str(key): dict(value) for key, value in evaluations.items()}}
            checkpoints.commit(folder, step=step, state=state, num_ranks=world_size())
            checkpoints.prune(self._root, keep=self._keep, best=best)
        wait_for_ranks()

    def weights_of(self, step: int, model: torch.nn.Module) -> dict[str, torch.Tensor]:
        """The weights that the student had after ``step`` steps, by every name that a parameter has.

        Raises:
            FileNotFoundError: its checkpoint is not there any more, or damaged.
        """
        found = checkpoints.of_step(self._root, step)
        if found is None:
            raise FileNotFoundError(f"the checkpoint of step {step} below {self._root} is gone or damaged")
        tensors = found.read()
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        every = model.named_parameters(remove_duplicate=False)
        return {name: tensors[f"{WEIGHT}/{names[id(parameter)]}"] for name, parameter in every}

    def restore(self, model: torch.nn.Module, optimizer: Any, resumption: Resumption) -> None:
        """Give the optimizer what it had; after the engine was made, before the first step."""
        restore(model, optimizer, resumption.tensors, num_steps=resumption.num_steps, sharded=self._sharded)


def seed_step(seed: int, step: int) -> None:
    """Seed torch for one step of this rank, so that a training taken up at it draws the same dropout."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step, rank()]).generate_state(1, np.uint64)[0] >> 1))
