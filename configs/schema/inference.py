"""How text is generated, what must never come out, where rows come from, and who judges them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from configs.schema.base import Model, NonNegativeInt, PositiveFloat, PositiveInt
from configs.schema.models import ModelSource


class Decoding(Model):
    """Beam search as in the recipe."""

    num_beams: Annotated[int, Field(ge=1, le=64)] = 4
    no_repeat_ngram_size: NonNegativeInt = 3
    """0 allows repeats."""
    length_penalty: float = 0.8
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] = 96


class Safety(Model):
    """Phrases that the model may never write; each is blocked in every casing and with or without a space before it."""

    blocklist: tuple[Annotated[str, Field(min_length=1)], ...] = ("Click here", "Read more", "Visit")


class Engine(Model):
    """What runs the model: CTranslate2, or Transformers as the slow reference."""

    name: Literal["ctranslate2", "transformers"] = "ctranslate2"
    compute_type: Literal["auto", "int8", "int8_bfloat16", "bfloat16", "float16", "float32"] = "auto"
    """auto: the type the model was exported in; for Transformers float32 on CPU."""
    batch_size: PositiveInt = 32
    """Sentences decoded together."""


class RowInput(Model):
    """A file of comments: CSV, TSV or JSONL with a header or keys."""

    path: Annotated[str, Field(min_length=1)]
    format: Literal["auto", "csv", "tsv", "jsonl"] = "auto"
    """auto: by the file's ending."""
    text_column: Annotated[str, Field(min_length=1)] = "text"


class RowOutput(Model):
    """The rewritten rows: all input columns, plus ``detoxified`` and ``distox_status``."""

    format: Literal["input", "csv", "tsv", "jsonl"] = "input"
    merge: bool = True
    """One ordered file beside the parts."""


class QueueSettings(Model):
    """How a dump is cut into tasks and how long a worker may hold one."""

    rows_per_task: PositiveInt = 64
    max_rows_queued: PositiveInt = 10_000
    """Rows pending, delayed and in flight; the source waits above it."""
    lease_seconds: PositiveFloat = 30.0
    task_time_limit_seconds: PositiveFloat = 600.0
    max_errors: NonNegativeInt = 3
    """Deliveries of a task that may end in an error before its rows are quarantined one by one."""
    max_crashes: NonNegativeInt = 2
    """Deliveries of a task that may kill their worker before the task is bisected."""


class System(Model):
    """One thing to be judged: a model, the rows of a file, or a control. Exactly one of the three."""

    model: ModelSource | None = None
    rows: str | None = None
    """A file with the columns ``source`` and ``output``, in the order of the test split."""
    control: Literal["copy", "delete", "reference"] | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        given = [key for key in ("model", "rows", "control") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of model, rows, control; given: {', '.join(given) or 'none'}")
        return self


class Judges(Model):
    """Who scores: ``embedded`` (needs no hub, never presented as the hub judge), a hub name, or a folder."""

    style: str = "embedded"
    """A sequence classifier with a label named ``toxic``, as unitary/toxic-bert."""
    content: str = "embedded"
    """An encoder for BERTScore, as roberta-large."""
    fluency: str = "embedded"
    """A causal language model, as gpt2."""
    trained: str | None = None
    """The judges that ``prepare`` trained (``${steps.data.judges}``); needed by the embedded fluency judge."""
    gate: str | None = None
    """The gate judge of the run that is evaluated, when it had one; the same model as ``style`` is refused."""
    allow_same_judge: bool = False

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.fluency == "embedded" and self.trained is None:
            raise ValueError(
                "the embedded fluency judge is trained by prepare; add trained: ${steps.data.judges} or a folder"
            )
        if self.gate is not None and self.gate == self.style and not self.allow_same_judge:
            raise ValueError(
                f"the gate judge {self.gate!r} may not also be the style judge that scores; name another, "
                "or set allow_same_judge: true and every table will say so"
            )
        return self


class Bootstrap(Model):
    """Resampling for the 95 % intervals and the paired comparisons."""

    num_resamples: Annotated[int, Field(ge=100)] = 1000
    seed: NonNegativeInt = 42
