"""Which of a comment's rewrites are good enough to be learned from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field
from pydantic_core import InitErrorDetails

from configs.schema.base import Model, NameOrPath, broken
from configs.schema.inference import EMBEDDED

Threshold = Annotated[float, Field(ge=0, le=1)]


class Keep(Model):
    """What a candidate must reach. Of those that do, the one with the highest style × content comes first.

    A comment of which no candidate is kept is flagged and has no rewrite; how many candidates were dropped, and why,
    is told among the figures of the run. The gate judge decides, never the one that scores an evaluation: a student
    that learned from what a judge let through would be praised by it.
    """

    gate: Annotated[NameOrPath | None, Field(examples=["${steps.data.judges}", "./models/classifier"])] = None
    """The judge of style: the judges that ``prepare`` trained (``${steps.data.judges}``), or a sequence classifier with
    a label named ``toxic``, by hub name or folder. Needed unless ``style`` is null."""
    style: Threshold | None = 0.5
    """Least 1 − P(toxic) of a candidate under the gate judge; null doesn't ask."""
    content: Threshold | None = 0.6
    """Least BERTScore-F1 of a candidate against its comment, rescaled as in an evaluation; null doesn't ask."""
    content_judge: Annotated[NameOrPath, Field(examples=["roberta-large"])] = EMBEDDED
    """An encoder for BERTScore: ``embedded`` (needs no hub), or one with a published baseline, as roberta-large."""
    not_copy: bool = True
    """Drop a candidate that is the comment again."""

    def broken_rules(self) -> Iterator[InitErrorDetails]:
        """Style is judged by somebody, and somebody who is named is asked."""
        remedy = "name ${steps.data.judges}, or a classifier as a hub name or folder"
        if self.gate is None and self.style is not None:
            yield broken("gate", None, "is missing; it judges the style", f"{remedy}; or set style: null")
        elif self.gate == EMBEDDED:
            yield broken("gate", self.gate, "is not there: a gate is fitted on a train split", remedy)
        elif self.gate is not None and self.style is None:
            yield broken(
                "gate", self.gate, "is never asked, because style is null", "remove it, or give style a number"
            )
