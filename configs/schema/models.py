"""Models: an existing one by name, or one made on the spot from a shape."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field
from pydantic_core import InitErrorDetails

from configs.schema.base import Model, NameOrPath, PositiveInt, broken


class Layers(Model):
    """Number of encoder and decoder blocks."""

    encoder: PositiveInt
    """Encoder blocks."""
    decoder: PositiveInt
    """Decoder blocks."""


class Shape(Model):
    """The shape of a T5: of one to make, or of a published one, checked against the loaded config.

    T5-base: layers 12/12, hidden 768, ffn 3072, heads 12; T5-small: 6/6, 512, 2048, 8; vocabulary 32,128 for both.
    """

    hidden_size: Annotated[int, Field(ge=8)]
    """Width of the hidden states (``d_model``)."""
    layers: Layers
    """Encoder and decoder blocks."""
    ffn_size: Annotated[int, Field(ge=8)]
    """Width of the feed-forward layers (``d_ff``)."""
    attention_heads: PositiveInt
    """Heads of each attention layer; they divide ``hidden_size``."""
    vocab_size: Annotated[int, Field(ge=100)] | None = None
    """Rows of the embedding; with ``init``, the tokenizer's size when left out."""

    def broken_rules(self) -> Iterator[InitErrorDetails]:
        """The heads divide the hidden size."""
        if self.hidden_size % self.attention_heads:
            yield broken(
                "attention_heads",
                self.attention_heads,
                f"doesn't divide hidden_size {self.hidden_size}",
                "change one of them",
            )


class ModelSource(Model):
    """One T5: ``name`` (hub name, folder, or ``${steps.teacher.model}``), or ``init`` for random weights of a shape."""

    name: Annotated[NameOrPath | None, Field(examples=["t5-base", "./models/student", "${steps.teacher.model}"])] = None
    """Hub name as ``t5-base``, folder of a trained or exported model, or a reference."""
    init: Shape | None = None
    """Make a model of this shape with random weights."""
    tokenizer: Annotated[NameOrPath | None, Field(examples=["t5-small", "${steps.data.tokenizer}"])] = None
    """Hub name, folder or reference; the model's own when left out. Needed with ``init``."""
    shape: Shape | None = None
    """What the loaded config must look like; not checked when left out."""

    def broken_rules(self) -> Iterator[InitErrorDetails]:
        """One origin; a tokenizer beside ``init``; no check of a shape that was asked for."""
        if self.name is None and self.init is None:
            yield broken("name", None, "is missing, and so is init", "give a hub name, folder or reference, or a shape")
        elif self.name is not None and self.init is not None:
            yield broken("init", None, f"stands beside name {self.name!r}", "remove one of them")
        elif self.init is not None and self.tokenizer is None:
            remedy = "add a folder, a hub name or ${steps.data.tokenizer}"
            yield broken("tokenizer", None, "is missing; init has none of its own", remedy)
        if self.init is not None and self.shape is not None:
            yield broken("shape", None, "checks a model that is loaded by name, and here init makes one", "remove it")


class FromTeacher(Model):
    """A student of some of the teacher's layers, spread evenly, the first and the last among them."""

    encoder_layers: PositiveInt
    """Encoder blocks of the student; at most the teacher's."""
    decoder_layers: PositiveInt
    """Decoder blocks of the student; at most the teacher's. They cost the most at inference."""


class StudentSource(ModelSource):
    """One T5 to be distilled into: ``name``, ``init``, or ``from_teacher`` for layers copied from the teacher."""

    from_teacher: FromTeacher | None = None
    """Copy the teacher with fewer layers; its width, vocabulary and tokenizer stay."""

    def broken_rules(self) -> Iterator[InitErrorDetails]:
        """One origin; the teacher's copy has all it needs."""
        if self.from_teacher is None:
            yield from super().broken_rules()
            return
        for key in ("name", "init", "tokenizer", "shape"):
            if getattr(self, key) is not None:
                yield broken(key, None, "stands beside from_teacher, which copies the teacher's", "remove one of them")
