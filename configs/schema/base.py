"""What every spec shares: frozen, strict models and the fields common to all kinds.

Strict means: an unknown key is refused, a string is no number, a number is no string. Specs hold data only: no code, no
shell, no owner (the owner comes from the API key).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

REFERENCE_PATTERN = r"^\$\{steps\.[a-z][a-z0-9_]*\.[a-z_]+\}$"
"""A reference to an output of an earlier step of the same pipeline, as ``${steps.teacher.model}``."""


class Model(BaseModel):
    """A frozen part of a spec that refuses unknown keys and wrong types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())


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
    gpu_type: str | None = None
    """Ray accelerator type, as ``A100``; any when left out."""


class Retries(Model):
    """How many attempts a run may lose before it is FAILED; the two budgets are separate."""

    errors: NonNegativeInt = 1
    """Attempts that ended with an error of their own."""
    lost_nodes: NonNegativeInt = 3
    """Attempts whose node or cluster went away."""


class SpecBase(Model):
    """The fields common to all kinds."""

    name: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    priority: Annotated[int, Field(ge=-10, le=10)] = 0
    resources: Resources = Resources()
    retries: Retries = Retries()
    deadline_seconds: PositiveFloat | None = None
    """The run is FAILED when it hasn't ended this long after its submission; no deadline when left out."""
    fresh: bool = False
    """Compute again even where a finished run has the same fingerprint."""
    output: str | None = None
    """Folder for the run's artifacts; a folder of the storage, named by run and attempt, when left out."""
