"""What every rank of ``test_ranks`` runs: ``python -m tests.jobs.rank_script FOLDER WORLD RANK [DEEPSPEED]``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from torch import distributed

from jobs import distill, finetune
from jobs.context import JobStopped
from tests.jobs.test_distill import make_spec as distill_spec
from tests.jobs.test_finetune import make_spec as finetune_spec
from tests.jobs.tiny import Recorder, tiny_source


def train(folder: Path, world: int, me: int, deepspeed: str | None = None) -> None:
    """Distil as rank ``me`` of ``world``; the same rows at every step, whatever ``world`` is."""
    training: dict[str, Any] = {
        "precision": "fp32",
        "batch_size": 8 // world,
        "max_steps": 9,
        "copy_warmup": {"steps": 3, "batch_size": 8 // world},
        "deepspeed": deepspeed,
    }
    student = tiny_source(folder / "tokenizer")
    recorder = Recorder()
    output = folder / f"world{world}" if me == 0 else folder / f"rank{me}"
    distill.run(distill_spec(folder / "pairs.csv", folder / "teacher", student, **training), recorder.context(output))
    if me > 0:
        assert not recorder.points, "only rank 0 reports"
        assert not list(output.iterdir()), "only rank 0 writes"


def stop(folder: Path, world: int, me: int) -> bool:
    """Train while only the last rank is told to stop; whether this one did."""
    recorder = Recorder(stop_after=0 if me == world - 1 else None)
    spec = finetune_spec(folder / "pairs.csv", tiny_source(folder / "tokenizer"), batch_size=2)
    try:
        finetune.run(spec, recorder.context(folder / "stopped"))
    except JobStopped:
        return True
    return False


def main(folder: Path, world: int, me: int, deepspeed: str | None = None) -> None:
    """Join the group, train, and without DeepSpeed also stop."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=me, world_size=world)
    train(folder, world, me, deepspeed)
    if deepspeed is None:
        print("stopped" if stop(folder, world, me) else "went on")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
