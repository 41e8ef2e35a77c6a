"""The seven kinds of spec, and the graph that a pipeline's references make."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, model_validator
from pydantic_core import InitErrorDetails

from configs.schema.base import SpecBase, broken
from configs.schema.data import SAMPLE, Dataset, JudgeTraining, SampleSize, TokenizerTraining
from configs.schema.examples import EXAMPLES
from configs.schema.export import Card, Gate
from configs.schema.inference import (
    CONTROLS,
    Bootstrap,
    Decoding,
    Engine,
    Judges,
    QueueSettings,
    RowInput,
    RowOutput,
    Safety,
    Speed,
    System,
)
from configs.schema.keeping import Keep
from configs.schema.models import ModelSource, StudentSource
from configs.schema.references import broken_references, find_references, order_of
from configs.schema.training import DistillationLoss, TeacherCache, Training


def _with_example(kind: str) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [EXAMPLES[kind]]})


class Prepare(SpecBase):
    """Makes or loads data, splits it, and trains a tokenizer and the embedded judges when asked."""

    model_config = _with_example("prepare")

    kind: Literal["prepare"] = "prepare"
    """prepare."""
    dataset: Dataset
    """The pairs."""
    sample: SampleSize | None = None
    """Size of the synthetic corpus; only with ``dataset.name: sample``."""
    tokenizer: TokenizerTraining | None = None
    """No tokenizer is trained when left out."""
    judges: JudgeTraining | None = None
    """No judges are trained when left out."""

    def broken_rules(self) -> Iterator[InitErrorDetails]:
        """Sizes are given to the sample only."""
        if self.sample is not None and self.dataset.name != SAMPLE:
            message = f"sizes the synthetic corpus, but dataset.name is {self.dataset.name!r}"
            yield broken("sample", None, message, f"remove it, or set dataset.name: {SAMPLE}")


class _Trains(SpecBase):
    """Shared by the kinds that train: one number of workers, wherever it was written."""

    dataset: Dataset
    """The pairs."""
    training: Training = Training()
    """The optimizer's settings."""

    @property
    def num_workers(self) -> int:
        """Training ranks."""
        return self.training.num_workers or self.resources.num_workers

    @model_validator(mode="before")
    @classmethod
    def _number_stands_in_both_places(cls, data: Any) -> Any:
        """Written out, a spec must give the same spec back: the default of one place would contradict the other."""
        if not isinstance(data, dict) or not isinstance(training := data.get("training"), dict):
            return data
        resources = data.get("resources", {})
        if training.get("num_workers") is None or not isinstance(resources, dict) or "num_workers" in resources:
            return data
        return {**data, "resources": {**resources, "num_workers": training["num_workers"]}}

    def broken_rules(self) -> Iterator[InitErrorDetails]:
        """Two numbers of workers must be the same."""
        asked = self.training.num_workers
        if asked and "num_workers" in self.resources.model_fields_set and asked != self.resources.num_workers:
            message = f"contradicts resources.num_workers {self.resources.num_workers}"
            yield broken("training.num_workers", asked, message, "remove one of them")


class Finetune(_Trains):
    """Trains a T5 on the pairs with cross-entropy: the teacher, or a student without distillation."""

    model_config = _with_example("finetune")

    kind: Literal["finetune"] = "finetune"
    """finetune."""
    model: ModelSource
    """What is trained."""

    def broken_rules(self) -> Iterator[InitErrorDetails]:
        """There is no teacher to agree with."""
        yield from super().broken_rules()
        if self.training.best_metric == "validation_teacher_agreement":
            remedy = "use validation_loss or validation_token_accuracy"
            yield broken("training.best_metric", self.training.best_metric, "needs a teacher", remedy)


class Distill(_Trains):
    """Trains a student on the pairs and on the frozen teacher's distribution."""

    model_config = _with_example("distill")

    kind: Literal["distill"] = "distill"
    """distill."""
    teacher_model: ModelSource
    """Frozen, in evaluation mode; its vocabulary is the student's."""
    student_model: StudentSource
    """What is trained."""
    loss: DistillationLoss = DistillationLoss()
    """How much the teacher counts."""
    teacher_cache: bool | TeacherCache = False
    """Run the teacher once for each row, before the training, and keep its states on disk: later epochs, and later runs
    with this teacher, take them from there. true for the defaults; the teacher runs in every epoch when left out."""

    @property
    def cache_of_teacher(self) -> TeacherCache | None:
        """How the teacher's states are kept; None where they aren't."""
        return TeacherCache() if self.teacher_cache is True else self.teacher_cache or None

    def broken_rules(self) -> Iterator[InitErrorDetails]:
        """A teacher knows something."""
        yield from super().broken_rules()
        if self.teacher_model.init is not None:
            yield broken("teacher_model.init", None, "would teach noise", "name a trained model: teacher_model.name")


class Export(SpecBase):
    """Makes of a trained model what is published: a CTranslate2 model, a Transformers folder, a bundle for devices."""

    model_config = _with_example("export")

    kind: Literal["export"] = "export"
    """export."""
    model: ModelSource
    """A trained model."""
    format: Literal["ctranslate2", "transformers"] = "ctranslate2"
    """ctranslate2: for the fast engine. transformers: weights as safetensors, tokenizer and generation settings."""
    quantization: Literal["int8", "int8_bfloat16", "bfloat16", "float16", "float32"] = "int8"
    """How weights are stored and computed; int8 is the fastest on CPU. A Transformers folder takes float32, its
    default, or bfloat16."""
    prefix: Annotated[str | None, Field(examples=["detoxify: ", ""])] = None
    """For a model that has no record of its training: the prefix that it was trained with."""
    max_length: Annotated[int, Field(ge=8, le=4096)] | None = None
    """For a model that has no record of its training: its longest input in tokens."""
    decoding: Decoding = Decoding()
    """How the gate and the bundle decode; the generation settings of a Transformers folder."""
    safety: Safety = Safety()
    """What never comes out in the gate and in the bundle."""
    segments: Literal["window", "sentence"] = "window"
    """As in detoxify, for the gate and the bundle."""
    gate: Gate | None = None
    """What the export has to pass; nothing when left out."""
    card: Card = Card()
    """What the model card says."""
    bundle: bool = False
    """Also make ``bundle``, a folder, and ``bundle_zip``: model, tokenizer and one script that need only the packages
    ctranslate2 and tokenizers."""

    @model_validator(mode="before")
    @classmethod
    def _transformers_stores_float32(cls, data: Any) -> Any:
        """The default of ``quantization`` belongs to the default of ``format``."""
        if isinstance(data, dict) and data.get("format") == "transformers":
            return {"quantization": "float32", **data}
        return data

    def broken_rules(self) -> Iterator[InitErrorDetails]:
        """A Transformers folder holds no whole numbers, a bundle holds a CTranslate2 model, nothing is drawn."""
        if self.decoding.sampling is not None:
            message = "writes something else each time, and an export is compared by what it writes"
            yield broken("decoding.sampling", None, message, "remove it")
        if self.format == "transformers":
            if self.quantization == "float16":
                message = "would be loaded as fp16, in which T5's activations overflow"
                yield broken("quantization", self.quantization, message, "use bfloat16 or float32")
            elif self.quantization not in {"float32", "bfloat16"}:
                remedy = "use float32 or bfloat16, or format: ctranslate2"
                yield broken("quantization", self.quantization, "is a type of CTranslate2", remedy)
            if self.bundle:
                yield broken("bundle", True, "runs a CTranslate2 model", "use format: ctranslate2, or remove it")
        if self.card.system is not None and self.card.results is None:
            message = "names a row of results, and there are none"
            yield broken("card.system", self.card.system, message, "add card.results, or remove it")


class Detoxify(SpecBase):
    """Rewrites a file of comments, every row exactly once."""

    model_config = _with_example("detoxify")

    kind: Literal["detoxify"] = "detoxify"
    """detoxify."""
    model: ModelSource
    """An exported model, or a trained one."""
    input: RowInput
    """The comments."""
    rows: RowOutput = RowOutput()
    """How the rewritten comments are written."""
    prefix: Annotated[str | None, Field(examples=["detoxify: ", ""])] = None
    """Put before every comment. The one that the model was trained with when left out, ``detoxify: `` where the model
    has no record of it."""
    max_length: Annotated[int, Field(ge=8, le=4096)] | None = None
    """Longest input of the model in tokens; longer comments are rewritten in segments. As in the model's training when
    left out, 96 where the model has no record of it."""
    segments: Literal["window", "sentence"] = "window"
    """window: as much of a comment at once as fits. sentence: each sentence by itself, for a model that was trained on
    single sentences."""
    decoding: Decoding = Decoding()
    """Beam search, or sampling."""
    samples: Annotated[int, Field(ge=1, le=64)] = 1
    """Candidates for each comment: the beam's best, or with ``decoding.sampling`` as many samples. Those beyond the
    first that differ, and are kept, become columns ``detoxified_2`` and so on."""
    keep: Keep | None = None
    """What a candidate must reach; every output that isn't flagged is kept when left out."""
    safety: Safety = Safety()
    """What must never come out."""
    engine: Engine = Engine()
    """What runs the model."""
    queue: QueueSettings = QueueSettings()
    """How the file is cut into tasks."""

    def broken_rules(self) -> Iterator[InitErrorDetails]:
        """A beam has no more candidates than hypotheses."""
        if self.samples > self.decoding.num_beams and self.decoding.sampling is None:
            remedy = f"set decoding.num_beams to {self.samples}, or add decoding.sampling: {{}}"
            message = f"is more than the {self.decoding.num_beams} hypotheses of the beam"
            yield broken("samples", self.samples, message, remedy)


class Evaluate(SpecBase):
    """Scores systems on the test split of a dataset: style, content, fluency, joint, each with its interval."""

    model_config = _with_example("evaluate")

    kind: Literal["evaluate"] = "evaluate"
    """evaluate."""
    dataset: Dataset
    """Its test split is rewritten and judged."""
    systems: Annotated[dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9 _.-]{1,60}$")], System], Field(min_length=1)]
    """Name in the table → what is judged, in the order of the table."""
    judges: Judges
    """Who scores."""
    decoding: Decoding = Decoding()
    """Beam search, for every model alike."""
    safety: Safety = Safety()
    """What must never come out."""
    engine: Engine = Engine()
    """What runs the models."""
    bootstrap: Bootstrap = Bootstrap()
    """Resampling for the intervals."""
    speed: Speed | None = Speed()
    """How speed and memory of the models are measured; null leaves it out, and the figure that shows it."""
    limit: Annotated[int, Field(ge=2)] | None = None
    """Score only the first rows of the test split; all when left out."""

    @property
    def models(self) -> dict[str, ModelSource]:
        """System → model, of the systems that are models, in the order of the table."""
        return {name: system.model for name, system in self.systems.items() if system.model is not None}

    def broken_rules(self) -> Iterator[InitErrorDetails]:
        """A baseline is a model; the name of a control is kept for that control."""
        baseline = self.speed.baseline if self.speed else None
        if baseline is not None and baseline not in self.models:
            remedy = f"use one of {', '.join(self.models)}" if self.models else "remove it"
            yield broken("speed.baseline", baseline, "is no system with a model", remedy)
        for name, system in self.systems.items():
            if name in CONTROLS and system.control != name:
                remedy = f"rename it, or give it control: {name}"
                yield broken(f"systems.{name}", None, "has the name of a control and is another system", remedy)


Step = Annotated[Prepare | Finetune | Distill | Export | Detoxify | Evaluate, Field(discriminator="kind")]
StepName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,40}$")]


class Pipeline(SpecBase):
    """Named steps whose references to one another make the graph; independent steps run side by side."""

    model_config = _with_example("pipeline")

    kind: Literal["pipeline"] = "pipeline"
    """pipeline."""
    steps: Annotated[dict[StepName, Step], Field(min_length=1)]
    """Name → spec of the step; where a path or name stands, ``${steps.NAME.OUTPUT}`` may stand."""

    def broken_rules(self) -> Iterator[InitErrorDetails]:
        """Every reference names an output of another step, and no circle; no gate judge scores."""
        yield from self._gates_that_score()
        steps = {name: step.model_dump(mode="json") for name, step in self.steps.items()}
        for fault in broken_references(steps):
            yield broken(fault.field, fault.value or None, fault.message, fault.remedy)

    def _gates_that_score(self) -> Iterator[InitErrorDetails]:
        gates = {step.keep.gate: name for name, step in self.steps.items() if isinstance(step, Detoxify) and step.keep}
        for name, step in self.steps.items():
            if not isinstance(step, Evaluate) or step.judges.style not in gates:
                continue
            judges = step.judges
            if not judges.allow_same_judge or judges.gate != judges.style:
                message = f"is also the gate judge of the step {gates[judges.style]}"
                remedy = "name another, or name it in judges.gate too and set allow_same_judge: true"
                yield broken(f"steps.{name}.judges.style", judges.style, message, remedy)

    def predecessors(self) -> dict[str, set[str]]:
        """Step → the steps whose outputs it refers to."""
        return {
            name: {reference.step for reference in find_references(step.model_dump(mode="json"))}
            for name, step in self.steps.items()
        }

    def order(self) -> list[str]:
        """The steps, each after those it waits for."""
        return order_of(self.predecessors())


Spec = Annotated[
    Prepare | Finetune | Distill | Export | Detoxify | Evaluate | Pipeline,
    Field(discriminator="kind"),
]
"""Any spec, told apart by its ``kind``."""

AnySpec = Prepare | Finetune | Distill | Export | Detoxify | Evaluate | Pipeline
SPEC: TypeAdapter[AnySpec] = TypeAdapter(Spec)
KINDS = ("prepare", "finetune", "distill", "export", "detoxify", "evaluate", "pipeline")
