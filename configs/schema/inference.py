"""How text is generated, what must never come out, where rows come from, and who judges them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field
from pydantic_core import InitErrorDetails

from configs.schema.base import (
    FilePath,
    Model,
    NameOrPath,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Texts,
    broken,
)
from configs.schema.models import ModelSource

EMBEDDED = "embedded"
"""The name of the judges that need no hub."""
CONTROLS = ("copy", "delete", "reference")
"""Systems that are no models."""


class Sampling(Model):
    """Each token drawn at random, in place of the search for the likeliest output.

    On Transformers a sample depends on the seed, the input and its number among that input's samples alone. On
    CTranslate2 the same calls in the same order give the same samples after loading; batches and threads change them,
    so the rows of a run with several workers can't be drawn again.
    """

    temperature: Annotated[float, Field(gt=0, le=10)] = 1.0
    """Logits are divided by it; below 1 likely tokens become likelier."""
    top_k: NonNegativeInt = 0
    """Draw from this many of the likeliest tokens; 0 for all."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Draw from the likeliest tokens whose probabilities together just reach this share; 1 for all."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    """Where the random numbers begin."""


class Decoding(Model):
    """Beam search as in the recipe, or sampling."""

    num_beams: Annotated[int, Field(ge=1, le=64)] = 4
    """Hypotheses kept; 1 is greedy. Without effect when sampling."""
    sampling: Sampling | None = None
    """Draw outputs at random instead; {} as the model gives them. Beam search when left out."""
    no_repeat_ngram_size: NonNegativeInt = 3
    """No n-gram of this size comes twice in an output; 0 allows repeats."""
    length_penalty: float = 0.8
    """Exponent of the length that scores are divided by; below 1 it favours short outputs. Without effect when
    sampling."""
    min_new_tokens: NonNegativeInt = 0
    """Shortest output in tokens, the end token not included."""
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] = 96
    """Longest output in tokens, the end token included."""
    patience: Annotated[float, Field(ge=1, le=8)] = 2.0
    """Beam search ends once ``num_beams * patience`` hypotheses are complete. 1 is a third faster, and often ends with
    a short hypothesis that a better one would still have overtaken. Without effect when sampling."""

    def broken_rules(self) -> Iterator[InitErrorDetails]:
        """An output can end before it is cut off."""
        if self.min_new_tokens >= self.max_new_tokens:
            remedy = f"use less than max_new_tokens, which is {self.max_new_tokens}"
            yield broken("min_new_tokens", self.min_new_tokens, "leaves no room for the end token", remedy)


class Safety(Model):
    """Phrases that the model may not write unless the comment holds them.

    A phrase counts where it stands as whole words: in any casing, with any spacing between its words, in full-width
    and other compatibility forms, with invisible characters inside; "Visit" isn't found in "Visitor". An output that
    holds one is replaced by the next best of the beam, or written again with the phrase's tokens suppressed; where
    that doesn't help the phrase is cut out and the row flagged.
    """

    blocklist: Texts = ("Click here", "Read more", "Visit")
    """The phrases; [] for none."""

    def broken_rules(self) -> Iterator[InitErrorDetails]:
        """A phrase holds something."""
        for number, phrase in enumerate(self.blocklist):
            if not phrase.strip():
                yield broken(f"blocklist.{number}", phrase, "is only whitespace", "remove it")


class Engine(Model):
    """What runs the model: CTranslate2, or Transformers as the slow reference."""

    name: Literal["ctranslate2", "transformers"] = "ctranslate2"
    """An exported model needs ctranslate2; a trained one runs on both."""
    compute_type: Literal["auto", "int8", "int8_bfloat16", "bfloat16", "float16", "float32"] = "auto"
    """auto: the type the model was exported in; for Transformers float32 on CPU."""
    batch_size: PositiveInt = 32
    """Sentences decoded together."""


class RowInput(Model):
    """A file of comments: CSV, TSV or JSONL with a header or keys."""

    path: Annotated[FilePath, Field(examples=["./comments.csv", "${steps.data.dump}"])]
    """The file, or a reference such as ``${steps.data.dump}``. A prepared folder stands for the comments of its train
    split; their column is ``source``."""
    format: Literal["auto", "csv", "tsv", "jsonl"] = "auto"
    """auto: by the file's ending."""
    text_column: Annotated[str, Field(min_length=1, examples=["comment"])] = "text"
    """The column, or key, that holds the comment."""


class RowOutput(Model):
    """The rewritten rows: all input columns, plus ``detoxified`` and ``distox_status``.

    With ``samples`` there are also ``detoxified_2`` and so on.
    """

    format: Literal["input", "csv", "tsv", "jsonl"] = "input"
    """input: as the input."""
    merge: bool = True
    """One ordered file beside the parts."""


class QueueSettings(Model):
    """How a dump is cut into tasks and how long a worker may hold one."""

    rows_per_task: PositiveInt = 64
    """Rows of one task, and of one part of the output."""
    max_rows_queued: PositiveInt = 10_000
    """Rows pending, delayed and in flight; the source waits above it."""
    lease_seconds: PositiveFloat = 30.0
    """A task goes to another worker when its own hasn't been heard of for this long."""
    task_time_limit_seconds: PositiveFloat = 600.0
    """A worker that takes longer for a task is ended; that counts as a crash."""
    max_errors: NonNegativeInt = 3
    """Deliveries of a task that may end in an error before its rows are quarantined one by one."""
    max_crashes: NonNegativeInt = 2
    """Deliveries of a task that may kill their worker before the task is bisected."""


class System(Model):
    """One thing to be judged: a model, the rows of a file, or a control. Exactly one of the three."""

    model: ModelSource | None = None
    """A trained or exported model; it rewrites the test split."""
    rows: Annotated[FilePath | None, Field(examples=["./outputs.csv"])] = None
    """A file with the columns ``source`` and ``output``, in the order of the test split."""
    control: Literal["copy", "delete", "reference"] | None = None
    """The source as it is, the source without its toxic words, or the reference."""

    def broken_rules(self) -> Iterator[InitErrorDetails]:
        """One origin."""
        given = [key for key in ("model", "rows", "control") if getattr(self, key) is not None]
        if len(given) != 1:
            message = f"names {', '.join(given)}" if given else "names nothing to judge"
            yield broken("", None, message, "give exactly one of model, rows, control")


class Judges(Model):
    """Who scores: ``embedded`` (needs no hub, never presented as the hub judge), a hub name, or a folder."""

    style: Annotated[NameOrPath, Field(examples=["unitary/toxic-bert"])] = EMBEDDED
    """A sequence classifier with a label named ``toxic``, as unitary/toxic-bert."""
    content: Annotated[NameOrPath, Field(examples=["roberta-large"])] = EMBEDDED
    """An encoder for BERTScore, as roberta-large."""
    fluency: Annotated[NameOrPath, Field(examples=["gpt2"])] = EMBEDDED
    """A causal language model, as gpt2."""
    trained: Annotated[NameOrPath | None, Field(examples=["${steps.data.judges}"])] = None
    """The judges that ``prepare`` trained (``${steps.data.judges}``); needed by the embedded fluency judge."""
    gate: Annotated[NameOrPath | None, Field(examples=["embedded"])] = None
    """The gate judge of the run that is evaluated, when it had one; the same model as ``style`` is refused. The two
    embedded ones are different models."""
    allow_same_judge: bool = False
    """Let the gate judge score too; every table then says so."""

    def broken_rules(self) -> Iterator[InitErrorDetails]:
        """The embedded fluency judge is trained; the gate judge doesn't score."""
        if self.fluency == EMBEDDED and self.trained is None:
            remedy = "add ${steps.data.judges} or a folder that prepare wrote, or name another fluency judge"
            yield broken("trained", None, "is missing; prepare trains the embedded fluency judge", remedy)
        if self.gate not in (None, EMBEDDED) and self.gate == self.style and not self.allow_same_judge:
            remedy = "name another, or set allow_same_judge: true and every table will say so"
            yield broken("gate", self.gate, "is also the style judge that scores", remedy)


class Bootstrap(Model):
    """Resampling for the 95 % intervals and the paired comparisons."""

    num_resamples: Annotated[int, Field(ge=100)] = 1000
    """Samples drawn with replacement from the rows."""
    seed: NonNegativeInt = 42
    """The same seed draws the same samples, so two systems are compared on the same rows."""


class Speed(Model):
    """How fast models are and what memory they take.

    Each is measured in a process of its own, and they take turns, so that other work on the machine slows all alike.
    Memory is the machine's, also where a model decodes on a GPU.
    """

    rows: PositiveInt = 64
    """The first rows of the test split, rewritten in each round one by one (latency) and in batches of
    ``engine.batch_size`` (rows per second); all when it has fewer."""
    rounds: Annotated[int, Field(ge=1, le=100)] = 3
    """How often each model has its turn, after a warm-up; ratios are medians over the rounds."""
    baseline: Annotated[str | None, Field(examples=["teacher"])] = None
    """The system that the other models' speed-up and memory are relative to; the first model when left out."""
