"""One rank of a training that is stopped and taken up; its arguments are FOLDER WORLD RANK PART DEEPSPEED.

PART is ``whole`` (uninterrupted), ``first`` (stopped after some steps) or ``second`` (goes on from what it kept).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from torch import distributed

from jobs import distill
from jobs.context import JobStopped
from tests.jobs.test_distill import make_spec
from tests.jobs.tiny import Recorder, tiny_source

STOP_AFTER = 7


def train(folder: Path, world: int, me: int, part: str, deepspeed: str) -> None:
    """Distil as rank ``me`` of ``world``; a step has the same rows whatever ``world`` is."""
    training: dict[str, Any] = {
        "precision": "fp32",
        "batch_size": 8 // world,
        "max_steps": 9,
        "copy_warmup": {"steps": 3, "batch_size": 8 // world},
        "checkpoint_steps": 2,
        "log_steps": 1,
        "deepspeed": None if deepspeed == "none" else deepspeed,
    }
    spec = make_spec(folder / "pairs.csv", folder / "teacher", tiny_source(folder / "tokenizer"), **training)
    recorder = Recorder(stop_after=STOP_AFTER if part == "first" and me == 0 else None)
    output = folder / (f"{part}{world}" if me == 0 else f"rank{me}")
    epoch = 2 if part == "second" else 1
    kept = None if part == "whole" else folder / "checkpoints"
    try:
        distill.run(spec, recorder.context(output, checkpoints=kept, epoch=epoch))
    except JobStopped:
        print("stopped")
    if part == "second" and me == 0:
        print("steps", len(recorder.steps("loss")) + len(recorder.steps("copy_loss")))


if __name__ == "__main__":
    folder, world, me = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    if world > 1:
        store = f"file://{folder}/store-{sys.argv[4]}{world}"
        distributed.init_process_group("gloo", init_method=store, rank=me, world_size=world)
    train(folder, world, me, *sys.argv[4:])
    if distributed.is_initialized():
        distributed.destroy_process_group()
