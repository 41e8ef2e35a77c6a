"""What an export has to pass before it is published, and what its model card says."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from configs.schema.base import FilePath, Model
from configs.schema.data import Dataset
from configs.schema.inference import Bootstrap, Judges


class Gate(Model):
    """An export that writes worse than the trained model it comes from is refused, and nothing is published.

    Both rewrite the same rows of the validation split with the same decoding, the trained one in float32, and the same
    judges score both. The test split is never touched, so the judges may be those of the evaluation.
    """

    dataset: Dataset
    """Its validation split is rewritten; the one that the model was trained with."""
    judges: Judges
    """Who scores."""
    max_drop: Annotated[float, Field(ge=0, le=1)] = 0.01
    """How much lower than the trained model's the mean joint may be."""
    limit: Annotated[int, Field(ge=2)] | None = 200
    """Use only the first rows of the validation split; null for all."""
    bootstrap: Bootstrap = Bootstrap()
    """Resampling for the interval of the difference, which is reported."""


class Card(Model):
    """What the model card (``README.md``) says beyond what the model remembers of its training."""

    title: Annotated[str | None, Field(min_length=1, max_length=200, examples=["T5-small detoxifier"])] = None
    """The heading; made of kind and size when left out."""
    license: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]*$", examples=["apache-2.0", "cc-by-4.0"])] = (
        "unknown"
    )
    """A licence id of the hub, as apache-2.0. unknown: the card says that data, teacher and base model may bind."""
    language: Annotated[str, Field(pattern=r"^[a-z]{2,3}$", examples=["en"])] = "en"
    """ISO 639 code of the comments' language."""
    results: Annotated[FilePath | None, Field(examples=["${steps.scores.scores}"])] = None
    """The ``scores`` of an evaluation; its table, intervals and judges go into the card."""
    system: Annotated[str | None, Field(min_length=1, examples=["student"])] = None
    """The row of ``results`` that is this model; its figures go into the card's metadata too."""
