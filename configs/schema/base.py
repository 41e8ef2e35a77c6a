"""What every spec shares: frozen, strict models, their rules, and the fields common to all kinds.

Strict means: an unknown key is refused, a string is no number, a number is no string. Specs hold data only: no code, no
shell, no owner (the owner comes from the API key). The string under a field is its description in the JSON Schema.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

REFERENCE_PATTERN = r"^\$\{(steps\.[a-z][a-z0-9_]*|runs\.r-[0-9a-z]+)\.[a-z_]+\}$"
"""A reference to an output of an earlier step of the same pipeline, as ``${steps.teacher.model}``, or of a run that has
SUCCEEDED, as ``${runs.r-1k10dp4r1sxdtmjsm3.model}``."""

FAULT = "fault"
"""Pydantic's error type of a broken rule; its context holds ``message`` and ``remedy``."""


class Model(BaseModel):
    """A frozen part of a spec that refuses unknown keys and wrong types, and keeps its rules."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        protected_namespaces=(),
        use_attribute_docstrings=True,
    )

    def broken_rules(self) -> Iterator[InitErrorDetails]:
        """Yield what the fields together do wrong, each made by ``broken``; asked when every field alone is right."""
        yield from ()

    @model_validator(mode="after")
    def _keep_rules(self) -> Self:
        if found := list(self.broken_rules()):
            # Pydantic puts the place of this model before the place of each.
            raise ValidationError.from_exception_data(type(self).__name__, found)
        return self


def broken(field: str, value: Any, message: str, remedy: str) -> InitErrorDetails:
    """One broken rule, at ``field`` (dotted; the model itself when empty)."""
    place = tuple(field.split(".")) if field else ()
    return InitErrorDetails(type=refusal(message, remedy), loc=place, input=value)


def refusal(message: str, remedy: str) -> PydanticCustomError:
    """What a validator of one field raises: why its value can't be used, and what to do."""
    return PydanticCustomError(FAULT, "{message}; {remedy}", {"message": message, "remedy": remedy})


class HoldsPath:
    """Marks a field that may hold a local path: a relative one is made absolute where the spec is submitted."""

    def __init__(self, *, always: bool) -> None:
        self.always = always
        """Whether it is a path whatever it looks like and whether it exists or not."""


NameOrPath = Annotated[str, Field(min_length=1), HoldsPath(always=False)]
"""A hub name, a path, a URL, a reference, or a word of ours such as ``sample``."""

FilePath = Annotated[str, Field(min_length=1), HoldsPath(always=True)]
"""A path, a URL or a reference."""

Texts = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(strict=False)]
"""A list of texts; not strict, because what a ``before`` validator has seen is a Python list, no JSON array."""

PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
"""A fraction strictly between 0 and 1."""


class Resources(Model):
    """What a run asks of the cluster; the scheduler counts ``num_workers`` times the rest."""

    num_workers: PositiveInt = 1
    """Training ranks, or actors of a worker pool."""
    cpus: PositiveInt = 1
    """CPUs for each worker; a worker sets its thread count to this number."""
    gpus: NonNegativeFloat = 0
    """GPUs for each worker."""
    memory_gb: PositiveFloat | None = None
    """Memory for each worker in GB (10^9 bytes); not reserved when left out."""
    gpu_type: Annotated[str | None, Field(examples=["A100"])] = None
    """Ray accelerator type, as ``A100``; any when left out."""


class Retries(Model):
    """How many attempts a run may lose before it is FAILED; the two budgets are separate."""

    errors: NonNegativeInt = 1
    """Attempts that ended with an error of their own."""
    lost_nodes: NonNegativeInt = 3
    """Attempts whose node or cluster went away."""


class SpecBase(Model):
    """The fields common to all kinds."""

    name: Annotated[
        Annotated[str, Field(min_length=1, max_length=200)] | None, Field(examples=["teacher", "march comments"])
    ] = None
    """What people call the run; it need not be unique."""
    priority: Annotated[int, Field(ge=-10, le=10)] = 0
    """Higher goes first; a waiting run gains on those that came later."""
    resources: Resources = Resources()
    """CPUs, GPUs and memory, for each worker."""
    retries: Retries = Retries()
    """How many attempts may fail or be lost."""
    deadline_seconds: PositiveFloat | None = None
    """The run is FAILED when it hasn't ended this long after its submission; no deadline when left out."""
    fresh: bool = False
    """Compute again even where a finished run has the same fingerprint."""
    output: Annotated[
        Annotated[str, Field(min_length=1), HoldsPath(always=True)] | None, Field(examples=["./results/march"])
    ] = None
    """Folder for the run's artifacts; a folder of the storage, named by run and attempt, when left out."""
