"""What the Trainer is told of the machine: device, precision, optimizer. All that is decided elsewhere is switched off.

fp16 is mixed precision on a GPU with a scaled loss, and only for who insists (``allow_fp16``): T5 overflows in it.
Weights stay in fp32, and so does the teacher.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import Seq2SeqTrainingArguments

from configs.schema.training import Training
from jobs.ranks import world_size


class PrecisionError(ValueError):
    """The precision that was asked for can't be had on this machine."""


def check_precision(training: Training) -> None:
    """Raise where the precision can't be had here; asks the machine, loads nothing.

    Raises:
        PrecisionError: fp16 without a GPU, or bf16 on a GPU that has none.
    """
    if training.precision == "fp16" and not torch.cuda.is_available():
        raise PrecisionError(
            "training.precision is fp16, and there is no GPU here; use precision: auto, or give the run one with "
            "resources: {gpus: 1}"
        )
    if training.precision == "bf16" and torch.cuda.is_available() and not torch.cuda.is_bf16_supported():
        raise PrecisionError("training.precision is bf16, and the GPU here has none; use precision: auto")


def make_arguments(training: Training, output: Path, deepspeed: dict[str, Any] | None) -> Seq2SeqTrainingArguments:
    """The Trainer's arguments on this machine. Loads of models come before: a ZeRO-3 setting shards later ones."""
    has_gpu = torch.cuda.is_available()
    has_bf16 = training.precision == "bf16" or (
        training.precision == "auto" and has_gpu and torch.cuda.is_bf16_supported()
    )
    return Seq2SeqTrainingArguments(
        output_dir=str(output),
        per_device_train_batch_size=training.batch_size,
        gradient_accumulation_steps=training.grad_accumulation,
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        num_train_epochs=1,
        optim="adamw_torch_fused",
        bf16=has_bf16,
        fp16=training.precision == "fp16",
        use_cpu=not has_gpu,
        ddp_backend=("nccl" if has_gpu else "gloo") if world_size() > 1 else None,
        seed=training.seed,
        deepspeed=deepspeed,
        disable_tqdm=True,
        report_to="none",
        logging_strategy="no",
        eval_strategy="no",
        save_strategy="no",
        logging_nan_inf_filter=False,
        dataloader_num_workers=0,
        dataloader_pin_memory=has_gpu,
        remove_unused_columns=False,
        log_level="warning",
    )
