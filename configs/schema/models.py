"""Models: an existing one by name, or one made on the spot from a shape."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from configs.schema.base import Model, PositiveInt


class Layers(Model):
    """Number of encoder and decoder blocks."""

    encoder: PositiveInt
    decoder: PositiveInt


class Shape(Model):
    """The published shape of a T5, checked against the loaded config when given.

    T5-base: layers 12/12, hidden 768, ffn 3072, heads 12; T5-small: 6/6, 512, 2048, 8; vocabulary 32,128 for both.
    """

    hidden_size: Annotated[int, Field(ge=8)]
    layers: Layers
    ffn_size: Annotated[int, Field(ge=8)]
    attention_heads: PositiveInt
    vocab_size: Annotated[int, Field(ge=100)] | None = None
    """Rows of the embedding; with ``init``, the tokenizer's size when left out."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.hidden_size % self.attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of attention_heads {self.attention_heads}; "
                "change one of them"
            )
        return self


class ModelSource(Model):
    """One T5: ``name`` (hub name, folder, or ``${steps.teacher.model}``), or ``init`` for random weights of a shape."""

    name: Annotated[str, Field(min_length=1)] | None = None
    init: Shape | None = None
    tokenizer: str | None = None
    """Hub name, folder or reference; the model's own when left out. Needed with ``init``."""
    shape: Shape | None = None
    """What the loaded config must look like; not checked when left out."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.name is None) == (self.init is None):
            raise ValueError(
                "give either name (a hub name, folder or reference) or init (a shape), not both and not neither"
            )
        if self.init is not None and self.tokenizer is None:
            raise ValueError(
                "init has no tokenizer of its own; add tokenizer (a folder, hub name or ${steps.data.tokenizer})"
            )
        if self.init is not None and self.shape is not None:
            raise ValueError("shape checks a model that is loaded by name; with init it says nothing, remove it")
        return self
