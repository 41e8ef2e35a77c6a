"""How a model is trained: loss, schedule, precision, sharding. Defaults are those of the published recipe."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_core import InitErrorDetails

from configs.schema.base import (
    FilePath,
    HoldsPath,
    Model,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    broken,
    refusal,
)

ZERO_STAGES = ("zero1", "zero2", "zero2_offload", "zero3", "zero3_offload")
"""The DeepSpeed files that ``configs/deepspeed`` holds."""

FP16_REASON = (
    "T5 overflows in fp16 (activations of its feed-forward layers pass 65,504) and the loss becomes NaN",
    "use precision: auto (bf16 where the hardware has it, else fp32) or precision: bf16; to try it all the same, set "
    "precision: fp16 and allow_fp16: true",
)
"""Why fp16 is refused, and what to use."""


class DistillationLoss(Model):
    """``CE + kd_weight * T^2 * KL(teacher || student)``, or another divergence; ``kd_weight: 0`` is fine-tuning."""

    temperature: PositiveFloat = 2.0
    """T: softens the distributions of teacher and student alike."""
    kd_weight: NonNegativeFloat = 0.7
    """Weight of the distillation term; cross-entropy has weight 1."""
    divergence: Literal["forward_kl", "reverse_kl", "jensen_shannon"] = "forward_kl"
    """forward_kl: KL(teacher || student), as published. reverse_kl: KL(student || teacher). jensen_shannon: both
    against their mixture."""
    beta: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """jensen_shannon's weight of the teacher in the mixture; near 0 it resembles forward_kl, near 1 reverse_kl."""


class TeacherCache(Model):
    """The teacher's last decoder states on disk, once for each row; memory-mapped when they are read.

    The figure ``teacher_rows_made`` of a run tells for how many rows its teacher had to work; 0 when all were there.
    """

    dtype: Literal["fp16", "bf16"] = "fp16"
    """What a state is kept in. A state beyond fp16's range is refused by name; bf16 holds it, less exactly."""
    folder: Annotated[FilePath | None, Field(examples=["./teacher-cache"])] = None
    """Where; a folder of the storage, shared by all runs, when left out (of this run alone where the storage is a URL).
    It may be deleted when no run uses it."""


class CopyWarmup(Model):
    """Teaches a model made on the spot to attend and copy before it sees a pair.

    Batches of random token sequences and of sentences of the train split, each to be copied; two random to one real.
    """

    steps: PositiveInt = 500
    """Optimizer steps of copying, before the steps on pairs."""
    batch_size: PositiveInt = 32
    """Sequences in a batch."""
    learning_rate: PositiveFloat = 1.0e-3
    """Constant while copying."""


class EarlyStopping(Model):
    """Ends a training that doesn't get better on the validation split."""

    patience: PositiveInt = 3
    """Evaluations in a row that may fail to be better than the best one."""
    min_delta: NonNegativeFloat = 0.0
    """What counts as better: by more than this."""


class Training(Model):
    """The optimizer's settings.

    One optimizer step sees ``batch_size * grad_accumulation * num_workers`` pairs; the loss is a mean over the labelled
    positions of all of them, however they are cut.
    """

    batch_size: PositiveInt = 4
    """Pairs in one forward pass of one rank."""
    grad_accumulation: PositiveInt = 2
    """Forward passes of a rank for one optimizer step."""
    learning_rate: PositiveFloat = 2.0e-4
    """Its peak, after the warm-up steps."""
    epochs: PositiveFloat = 3.0
    """Passes over the train split."""
    max_steps: PositiveInt | None = None
    """Optimizer steps; wins over ``epochs`` when given."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate falls after the warm-up steps."""
    warmup_steps: NonNegativeInt = 0
    """Optimizer steps in which the learning rate rises from 0."""
    weight_decay: NonNegativeFloat = 0.0
    """AdamW's decoupled weight decay."""
    max_grad_norm: PositiveFloat = 1.0
    """Gradients with a larger norm are scaled down to it."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Replaces the model's own dropout rate; the model's when left out."""
    precision: Literal["auto", "bf16", "fp32", "fp16"] = "auto"
    """auto: bf16 where a GPU has it, else fp32. fp16 is refused without ``allow_fp16``: T5 overflows in it."""
    allow_fp16: bool = False
    """Let ``precision: fp16`` be tried, on a GPU; a loss that isn't finite then ends the run."""
    fp16: Annotated[bool, Field(exclude=True)] = False
    """The published recipe's flag; true is refused with the reason, false says nothing. ``precision`` replaces it."""
    num_workers: PositiveInt | None = None
    """Training ranks; the same thing as ``resources.num_workers``, in the recipe's place."""
    deepspeed: Annotated[
        Annotated[str, HoldsPath(always=False)] | None, Field(examples=["zero2", "./deepspeed.json"])
    ] = None
    """zero1, zero2, zero3, or the path of a DeepSpeed JSON file; plain data-parallel training when left out.
    zero2_offload and zero3_offload keep what a GPU has no room for in the machine's memory, and step there."""
    copy_warmup: CopyWarmup | None = None
    """For a model made on the spot; none when left out."""
    pad_to: Literal["longest", "max_length"] = "longest"
    """longest: a batch is as long as its longest row. max_length: as long as the dataset's ``max_length``, as in the
    published recipe; the same gradients for several times the work."""
    seed: NonNegativeInt = 42
    """Decides the order of the pairs, dropout, and the weights of a model made on the spot."""
    log_steps: PositiveInt = 10
    """Optimizer steps between two points of the live metrics."""
    eval_steps: PositiveInt | None = None
    """Optimizer steps between two evaluations on the validation split; once at the end when left out."""
    best_metric: Literal["validation_loss", "validation_token_accuracy", "validation_teacher_agreement"] | None = None
    """The model that was best by this figure of the validation split is what the run makes; the last one when left out.
    Needs ``eval_steps``."""
    early_stopping: EarlyStopping | None = None
    """When to end before the last step; never when left out. Needs ``best_metric``."""
    checkpoint_steps: PositiveInt | None = 500
    """Optimizer steps, the copy warm-up's included, between two checkpoints, from which a later attempt goes on; null
    for none."""
    keep_checkpoints: PositiveInt = 2
    """Checkpoints that are kept while the run goes on; none is kept once it has SUCCEEDED."""

    def broken_rules(self) -> Iterator[InitErrorDetails]:
        """What is best can only be told where something is evaluated; fp16 is for who insists."""
        if self.precision == "fp16" and not self.allow_fp16:
            yield broken("precision", self.precision, *FP16_REASON)
        if self.precision == "fp16" and self.deepspeed is not None:
            remedy = "remove deepspeed, or use precision: bf16"
            yield broken("precision", self.precision, "keeps weights in fp32, and DeepSpeed would not", remedy)
        if self.best_metric is not None and self.eval_steps is None:
            yield broken("eval_steps", None, "is missing; best_metric is looked at there", "add it, such as 100")
        if self.early_stopping is not None and self.best_metric is None:
            remedy = "add it, such as validation_loss"
            yield broken("best_metric", None, "is missing; early_stopping goes by it", remedy)

    @field_validator("fp16")
    @classmethod
    def _answer_fp16_flag(cls, fp16: bool) -> bool:
        if fp16:
            raise refusal(*FP16_REASON)
        return fp16

    @field_validator("deepspeed")
    @classmethod
    def _name_a_config(cls, deepspeed: str | None) -> str | None:
        if deepspeed is None or deepspeed in ZERO_STAGES or deepspeed.endswith(".json"):
            return deepspeed
        close = difflib.get_close_matches(deepspeed, ZERO_STAGES, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        remedy = f"{hint}use {', '.join(ZERO_STAGES)}, or the path of a JSON file"
        raise refusal("is no DeepSpeed setting that distox has", remedy)
