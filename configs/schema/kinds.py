"""The seven kinds of spec, and the graph that a pipeline's references make."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any, Literal, Self

from pydantic import Field, TypeAdapter, model_validator

from configs.schema.base import SpecBase
from configs.schema.data import SAMPLE, Dataset, JudgeTraining, SampleSize, TokenizerTraining
from configs.schema.inference import (
    Bootstrap,
    Decoding,
    Engine,
    Judges,
    QueueSettings,
    RowInput,
    RowOutput,
    Safety,
    System,
)
from configs.schema.models import ModelSource
from configs.schema.references import OUTPUTS, find_references
from configs.schema.training import DistillationLoss, Training


class Prepare(SpecBase):
    """Makes or loads data, splits it, and trains a tokenizer and the embedded judges when asked."""

    kind: Literal["prepare"] = "prepare"
    dataset: Dataset
    sample: SampleSize | None = None
    """Only with ``dataset.name: sample``."""
    tokenizer: TokenizerTraining | None = None
    """No tokenizer is trained when left out."""
    judges: JudgeTraining | None = None
    """No judges are trained when left out."""

    @model_validator(mode="after")
    def _sample_fits(self) -> Self:
        if self.sample is not None and self.dataset.name != SAMPLE:
            raise ValueError(
                f"sample sizes the synthetic corpus, but dataset.name is {self.dataset.name!r}; remove sample"
            )
        return self


class _Trains(SpecBase):
    """Shared by the kinds that train: one number of workers, wherever it was written."""

    dataset: Dataset
    training: Training = Training()

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

    @model_validator(mode="after")
    def _one_number_of_workers(self) -> Self:
        asked = self.training.num_workers
        if asked and "num_workers" in self.resources.model_fields_set and asked != self.resources.num_workers:
            raise ValueError(
                f"training.num_workers is {asked} and resources.num_workers is {self.resources.num_workers}; remove one"
            )
        return self


class Finetune(_Trains):
    """Trains a T5 on the pairs with cross-entropy: the teacher, or a student without distillation."""

    kind: Literal["finetune"] = "finetune"
    model: ModelSource


class Distill(_Trains):
    """Trains a student on the pairs and on the frozen teacher's distribution."""

    kind: Literal["distill"] = "distill"
    teacher_model: ModelSource
    student_model: ModelSource
    loss: DistillationLoss = DistillationLoss()

    @model_validator(mode="after")
    def _teacher_exists(self) -> Self:
        if self.teacher_model.init is not None:
            raise ValueError("teacher_model.init would teach noise; give teacher_model.name (a trained model)")
        return self


class Export(SpecBase):
    """Converts a trained model for the CTranslate2 engine."""

    kind: Literal["export"] = "export"
    model: ModelSource
    quantization: Literal["int8", "int8_bfloat16", "bfloat16", "float16", "float32"] = "int8"


class Detoxify(SpecBase):
    """Rewrites a file of comments, every row exactly once."""

    kind: Literal["detoxify"] = "detoxify"
    model: ModelSource
    input: RowInput
    rows: RowOutput = RowOutput()
    prefix: str = "detoxify: "
    max_length: Annotated[int, Field(ge=8, le=4096)] = 96
    decoding: Decoding = Decoding()
    safety: Safety = Safety()
    engine: Engine = Engine()
    queue: QueueSettings = QueueSettings()


class Evaluate(SpecBase):
    """Scores systems on the test split of a dataset: style, content, fluency, joint, each with its interval."""

    kind: Literal["evaluate"] = "evaluate"
    dataset: Dataset
    systems: Annotated[dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9 _.-]{1,60}$")], System], Field(min_length=1)]
    """Name in the table → what is judged, in the order of the table."""
    judges: Judges
    decoding: Decoding = Decoding()
    safety: Safety = Safety()
    engine: Engine = Engine()
    bootstrap: Bootstrap = Bootstrap()
    limit: Annotated[int, Field(ge=2)] | None = None
    """Score only the first rows of the test split; all when left out."""


Step = Annotated[Prepare | Finetune | Distill | Export | Detoxify | Evaluate, Field(discriminator="kind")]
StepName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,40}$")]


class Pipeline(SpecBase):
    """Named steps whose references to one another make the graph; independent steps run side by side."""

    kind: Literal["pipeline"] = "pipeline"
    steps: Annotated[dict[StepName, Step], Field(min_length=1)]

    @model_validator(mode="after")
    def _references_hold(self) -> Self:
        faults: list[str] = []
        for name, step in self.steps.items():
            for reference in find_references(step.model_dump(mode="json")):
                target = self.steps.get(reference.step)
                where = f"steps.{name}.{reference.field}: ${{steps.{reference.step}.{reference.output}}}"
                if target is None:
                    faults.append(f"{where} names no step; the steps are {', '.join(self.steps)}")
                elif reference.output not in OUTPUTS[target.kind]:
                    faults.append(f"{where}: a {target.kind} step has {', '.join(OUTPUTS[target.kind])}")
        if faults:
            raise ValueError("; ".join(faults))
        try:
            self.order()
        except CycleError as error:
            raise ValueError(
                f"steps wait for one another in a circle: {' -> '.join(error.args[1])}; break it"
            ) from error
        return self

    def predecessors(self) -> dict[str, set[str]]:
        """Step → the steps whose outputs it refers to."""
        return {
            name: {reference.step for reference in find_references(step.model_dump(mode="json"))}
            for name, step in self.steps.items()
        }

    def order(self) -> list[str]:
        """The steps, each after those it waits for.

        Raises:
            CycleError: steps wait for one another.
        """
        return list(TopologicalSorter(self.predecessors()).static_order())


Spec = Annotated[
    Prepare | Finetune | Distill | Export | Detoxify | Evaluate | Pipeline,
    Field(discriminator="kind"),
]
"""Any spec, told apart by its ``kind``."""

AnySpec = Prepare | Finetune | Distill | Export | Detoxify | Evaluate | Pipeline
SPEC: TypeAdapter[AnySpec] = TypeAdapter(Spec)
KINDS = ("prepare", "finetune", "distill", "export", "detoxify", "evaluate", "pipeline")
