"""The gate of an export: it is published only if it writes about as well as the trained model it comes from.

Both rewrite the same rows of the validation split, as ``detoxify`` would, and one panel of judges scores both. The test
split stays unseen, so the panel may be the one of the evaluation.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from configs.schema.export import Gate
from configs.schema.inference import Engine
from configs.schema.kinds import Export
from configs.schema.models import ModelSource
from jobs.blocklist import Blocklist
from jobs.context import JobContext, JobStopped, Summary
from jobs.data import DataError, Pair, load_pairs
from jobs.detoxify import Detoxifier
from jobs.generation import load_generator
from jobs.judges.panel import Panel, judge, load_panel
from jobs.metrics import Bootstrap, Estimate
from jobs.model_record import InputForm

ROWS_IN_CALL = 64
"""Between two calls of a model the job can be stopped."""
EXPORTED, TRAINED = "exported", "trained"

logger = logging.getLogger(__name__)


class GateRefused(ValueError):  # noqa: N818 (an outcome, which the message explains)
    """The export writes worse than the trained model; the message has the figures and says what to do."""


@dataclass(frozen=True)
class GateResult:
    """How the export compares with the trained model; ``difference`` is exported minus trained, row by row."""

    exported: Estimate
    trained: Estimate
    difference: Estimate
    p_value: float
    max_drop: float
    judges: dict[str, str]

    @property
    def is_passed(self) -> bool:
        """Whether the mean joint fell by no more than the margin."""
        return self.difference.value >= -self.max_drop

    @property
    def summaries(self) -> tuple[Summary, ...]:
        """The figures of the run."""
        rows = {
            ("joint", EXPORTED): self.exported,
            ("joint", TRAINED): self.trained,
            ("joint_difference", EXPORTED): self.difference,
        }
        return tuple(
            Summary(f"gate_{metric}", item.value, system, item.low, item.high, item.count)
            for (metric, system), item in rows.items()
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain data for the record."""
        return {**asdict(self), "num_rows": self.difference.count}


def pass_gate(spec: Export, gate: Gate, exported: Path, form: InputForm, context: JobContext) -> GateResult:
    """Compare the exported folder with ``spec.model`` in float32.

    Raises:
        GateRefused: the joint fell by more than ``gate.max_drop``.
        DataError: there is no validation row.
        JudgeError: a judge that can't be used.
        JobStopped: asked to stop.
    """
    splits = load_pairs(gate.dataset)
    rows = splits.validation[: gate.limit]
    if not rows:
        raise DataError(
            f"gate.dataset.name = {gate.dataset.name}: its validation split is empty; set gate.dataset.validation"
        )
    panel = load_panel(gate.judges, splits.train)
    models = {EXPORTED: ModelSource(name=str(exported)), TRAINED: spec.model}
    outputs = {name: _rewrite(spec, model, form, rows, context) for name, model in models.items()}
    torch.set_num_threads(context.num_threads)
    result = _compare(gate, panel, rows, outputs, context.should_stop)
    if not result.is_passed:
        raise GateRefused(_refusal(spec, result))
    logger.info(
        "the gate is passed: joint %.3f, %+.4f against the trained model on %d rows",
        result.exported.value,
        result.difference.value,
        len(rows),
    )
    return result


def _rewrite(
    spec: Export, model: ModelSource, form: InputForm, rows: tuple[Pair, ...], context: JobContext
) -> list[str]:
    """What ``detoxify`` would write; a trained model is run in float32."""
    generator = load_generator(
        model,
        prefix=form.prefix,
        max_length=form.max_length,
        decoding=spec.decoding,
        safety=spec.safety,
        engine=Engine(),
        num_threads=context.num_threads,
    )
    detoxifier = Detoxifier(generator, Blocklist(spec.safety.blocklist), by_sentence=spec.segments == "sentence")
    texts: list[str] = []
    for start in range(0, len(rows), ROWS_IN_CALL):
        if context.should_stop():
            raise JobStopped
        part = [pair.source for pair in rows[start : start + ROWS_IN_CALL]]
        texts += [rewrite.text or "" for rewrite in detoxifier.rewrite(part)]
    return texts


def _compare(
    gate: Gate, panel: Panel, rows: tuple[Pair, ...], outputs: dict[str, list[str]], should_stop: Callable[[], bool]
) -> GateResult:
    scores = judge(panel, rows, outputs, should_stop=should_stop, done=lambda _: None)
    joints = [scores[name].joint for name in (EXPORTED, TRAINED)]
    settings = gate.bootstrap
    bootstrap = Bootstrap(len(rows), num_resamples=settings.num_resamples, seed=settings.seed)
    exported, trained = bootstrap.estimate(joints)
    (comparison,) = bootstrap.compare([(joints[0], joints[1])])
    judges = {"style": panel.style.name, "content": panel.content.name, "fluency": panel.fluency.name}
    return GateResult(exported, trained, comparison.difference, comparison.p_value, gate.max_drop, judges)


def _refusal(spec: Export, result: GateResult) -> str:
    drop = result.difference
    # int8_bfloat16 rounds the weights just as int8 does.
    others = "bfloat16 or float32" if spec.quantization.startswith("int8") else "float32"
    return (
        f"quantization {spec.quantization!r}: on {drop.count} validation rows the joint falls from "
        f"{result.trained.value:.4f} to {result.exported.value:.4f}, by {-drop.value:.4f} "
        f"[{-drop.high:.4f}, {-drop.low:.4f}], and gate.max_drop allows {result.max_drop:g}; choose {others}, or raise "
        "gate.max_drop"
    )
