"""One rank of ``test_normalisation``: ``python -m tests.jobs.step_script FOLDER WORLD RANK KIND DEEPSPEED``.

Three optimizer steps of eight rows each, whatever the number of ranks; rank 0 leaves ``figures.json`` and the weights.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from torch import distributed

from jobs import distill, finetune
from tests.jobs.test_distill import make_spec as distill_spec
from tests.jobs.test_finetune import make_spec as finetune_spec
from tests.jobs.tiny import Recorder, tiny_source

FIGURES = ("loss", "ce", "kd", "grad_norm")


def train(
    folder: Path, output: Path, kind: str, *, batch_size: int, accumulation: int, deepspeed: str | None = None
) -> Path:
    """Three steps as this rank; where rank 0 has left what came of them."""
    training: dict[str, Any] = {
        "precision": "fp32",
        "batch_size": batch_size,
        "grad_accumulation": accumulation,
        "max_steps": 3,
        "dropout": 0.0,
        "log_steps": 1,
        "deepspeed": deepspeed,
    }
    recorder = Recorder()
    context = recorder.context(output)
    student = tiny_source(folder / "tokenizer")
    if kind == "distill":
        distill.run(distill_spec(folder / "pairs.csv", folder / "teacher", student, **training), context)
    else:
        finetune.run(finetune_spec(folder / "pairs.csv", student, **training), context)
    (output / "figures.json").write_text(json.dumps({name: recorder.values(name) for name in FIGURES}))
    return output


def main(folder: Path, world: int, me: int, kind: str, stage: str) -> None:
    """Join the group and train as two rows times two micro-batches."""
    store = f"file://{folder}/store-{kind}-{stage}"
    distributed.init_process_group("gloo", init_method=store, rank=me, world_size=world)
    output = folder / (f"{kind}-{stage}" if me == 0 else f"{kind}-{stage}-rank{me}")
    deepspeed = None if stage == "ddp" else stage
    train(folder, output, kind, batch_size=2, accumulation=8 // (2 * world), deepspeed=deepspeed)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
