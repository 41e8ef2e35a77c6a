"""How a model is trained: loss, schedule, precision, sharding. Defaults are those of the published recipe."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from configs.schema.base import Model, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

FP16_REASON = (
    "T5 overflows in fp16: activations of its feed-forward layers pass 65,504 and the loss becomes NaN; "
    "use precision: auto (bf16 where the hardware has it, else fp32) or precision: bf16"
)


class DistillationLoss(Model):
    """``CE + kd_weight * T^2 * KL(teacher || student)``; ``kd_weight: 0`` is plain fine-tuning."""

    temperature: PositiveFloat = 2.0
    kd_weight: NonNegativeFloat = 0.7


class CopyWarmup(Model):
    """Teaches a model made on the spot to attend and copy before it sees a pair.

    Batches of random token sequences and of sentences of the train split, each to be copied; two random to one real.
    """

    steps: PositiveInt = 500
    batch_size: PositiveInt = 32
    learning_rate: PositiveFloat = 1.0e-3


class Training(Model):
    """The optimizer's settings.

    One optimizer step sees ``batch_size * grad_accumulation * num_workers`` pairs; the loss is a mean over the labelled
    positions of all of them, however they are cut.
    """

    batch_size: PositiveInt = 4
    grad_accumulation: PositiveInt = 2
    learning_rate: PositiveFloat = 2.0e-4
    epochs: PositiveFloat = 3.0
    max_steps: PositiveInt | None = None
    """Optimizer steps; wins over ``epochs`` when given."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup_steps: NonNegativeInt = 0
    weight_decay: NonNegativeFloat = 0.0
    max_grad_norm: PositiveFloat = 1.0
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Replaces the model's own dropout rate; the model's when left out."""
    precision: Literal["auto", "bf16", "fp32", "fp16"] = "auto"
    """auto: bf16 where a GPU has it, else fp32."""
    num_workers: PositiveInt | None = None
    """Training ranks; the same thing as ``resources.num_workers``, in the recipe's place."""
    deepspeed: str | None = None
    """zero1, zero2, zero3, or the path of a DeepSpeed JSON file; plain data-parallel training when left out."""
    copy_warmup: CopyWarmup | None = None
    seed: NonNegativeInt = 42
    log_steps: PositiveInt = 10
    """Optimizer steps between two points of the live metrics."""
    eval_steps: PositiveInt | None = None
    """Optimizer steps between two evaluations on the validation split; once at the end when left out."""

    @model_validator(mode="before")
    @classmethod
    def _answer_fp16_flag(cls, data: Any) -> Any:
        if isinstance(data, dict) and "fp16" in data:
            if data["fp16"] is not False:
                raise ValueError(f"fp16: {FP16_REASON}")
            return {key: value for key, value in data.items() if key != "fp16"}
        return data

    @model_validator(mode="after")
    def _refuse_fp16(self) -> Self:
        if self.precision == "fp16":
            raise ValueError(f"precision fp16: {FP16_REASON}")
        return self
