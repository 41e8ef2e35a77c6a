"""What an evaluation leaves behind: the figures of every system, and the files that hold them.

``rows.parquet`` has one line for each row and system with the texts and all values, ``scores.json`` every figure and
who judged, ``table.md`` the table. The judges are named everywhere, so that embedded ones are never taken for
hub judges.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from configs.schema.kinds import Evaluate
from jobs.context import Summary
from jobs.data import Pair
from jobs.judges.panel import Panel, Scores, is_gate_also_judge
from jobs.metrics import Bootstrap
from jobs.systems import Outputs

VERSION = 1
ROWS_FILE, SCORES_FILE, TABLE_FILE = "rows.parquet", "scores.json", "table.md"
REFERENCE_POINTS = ("copy", "delete")
"""Controls that every model is compared with."""
TABLE = {
    "style": "style",
    "content_source": "content vs. source",
    "content_reference": "content vs. reference",
    "fluency": "fluency",
    "joint": "joint",
}
"""Metric → heading, each with its interval."""
SAME_JUDGE = "The gate judge of these outputs and the style judge of this table are one model: style is flattered."


@dataclass(frozen=True)
class Evaluation:
    """Everything that was found out."""

    spec: Evaluate
    panel: Panel
    test: Sequence[Pair]
    outputs: Mapping[str, Outputs]
    scores: Mapping[str, Scores]

    @property
    def bootstrap(self) -> Bootstrap:
        """The same resamples for every system and metric."""
        settings = self.spec.bootstrap
        return Bootstrap(len(self.test), num_resamples=settings.num_resamples, seed=settings.seed)


def summarize(evaluation: Evaluation) -> tuple[Summary, ...]:
    """Every figure of every system, in the order of the spec."""
    means = {
        (name, metric): column for name, item in evaluation.scores.items() for metric, column in item.means.items()
    }
    estimates = dict(zip(means, evaluation.bootstrap.estimate(list(means.values())), strict=True))
    summaries: list[Summary] = []
    for name, scores in evaluation.scores.items():
        for metric in scores.means:
            item = estimates[name, metric]
            summaries.append(Summary(metric, item.value, name, item.low, item.high, item.count))
        summaries += _perplexities(name, scores)
        summaries += _gains(name, evaluation)
        cost = evaluation.outputs[name]
        for metric in ("parameters", "bytes_on_disk", "rows_per_second"):
            figure = getattr(cost, metric)
            if figure is not None:
                summaries.append(Summary(metric, float(figure), name))
    return tuple(summaries)


def compare_all(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Each pair of systems on each mean: difference (first minus second), interval and p-value."""
    means = {name: scores.means for name, scores in evaluation.scores.items()}
    keys = [(one, other, metric) for one, other in combinations(means, 2) for metric in means[one]]
    results = evaluation.bootstrap.compare([(means[one][metric], means[other][metric]) for one, other, metric in keys])
    return [
        {"metric": metric, "system": one, "minus": other, **asdict(result)}
        for (one, other, metric), result in zip(keys, results, strict=True)
    ]


def render_table(evaluation: Evaluation, summaries: Iterable[Summary]) -> str:
    """The table as Markdown, with who judged under it."""
    values = {(item.system, item.metric): item for item in summaries}
    headings = ["system", *TABLE.values(), "parameters", "size on disk", "rows per second"]
    lines = [" | ".join(headings), " | ".join(["---", *["---:"] * (len(headings) - 1)])]
    for name in evaluation.scores:
        cells = [_interval(values[name, metric]) for metric in TABLE]
        cells += [
            _number(values.get((name, "parameters")), "{:,.0f}"),
            _number(values.get((name, "bytes_on_disk")), "{:.1f} MB", scale=1e-6),
            _number(values.get((name, "rows_per_second")), "{:,.0f}"),
        ]
        lines.append(" | ".join([name, *cells]))
    judges = ", ".join(f"{role}: {item['name']}" for role, item in _judges(evaluation.panel).items())
    notes = [f"{len(evaluation.test)} test rows; means with 95 % bootstrap intervals. Judges: {judges}."]
    if any(system.control == "reference" for system in evaluation.spec.systems.values()):
        notes.append("The reference's content vs. reference is 1 by definition: it is compared with itself.")
    if is_gate_also_judge(evaluation.spec.judges):
        notes.append(SAME_JUDGE)
    return "\n".join([*(f"| {line} |" for line in lines), "", *notes, ""])


def write_files(evaluation: Evaluation, summaries: Sequence[Summary], folder: Path) -> None:
    """Write the three files, ``scores.json`` last."""
    import pyarrow
    import pyarrow.parquet

    folder.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(_columns(evaluation)), folder / ROWS_FILE)
    (folder / TABLE_FILE).write_text(render_table(evaluation, summaries), encoding="utf-8")
    content = evaluation.panel.content
    data = {
        "version": VERSION,
        "dataset": evaluation.spec.dataset.model_dump(mode="json"),
        "num_rows": len(evaluation.test),
        "judges": _judges(evaluation.panel),
        "bert_score": {"num_layers": content.num_layers, "baseline": content.baseline, "idf": False},
        "gate_is_style_judge": is_gate_also_judge(evaluation.spec.judges),
        "bootstrap": evaluation.spec.bootstrap.model_dump(mode="json"),
        "summaries": [asdict(item) for item in summaries],
        "comparisons": compare_all(evaluation),
        "statuses": {name: dict(item.statuses) for name, item in evaluation.outputs.items() if item.statuses},
    }
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / SCORES_FILE).write_text(text + "\n", encoding="utf-8")


def _perplexities(name: str, scores: Scores) -> Iterator[Summary]:
    """Of the outputs that have tokens; nothing where none has."""
    filled = scores.num_tokens > 0
    if filled.any():
        likelihood = scores.likelihood
        count = int(filled.sum())
        yield Summary("perplexity_median", float(np.median(likelihood.perplexity[filled])), name, count=count)
        yield Summary("perplexity_corpus", likelihood.corpus_perplexity, name, count=count)


def _gains(name: str, evaluation: Evaluation) -> Iterator[Summary]:
    """How much higher the joint of a model (or of rows from a file) is than that of the controls."""
    systems = evaluation.spec.systems
    if systems[name].control is not None:
        return
    points = {systems[other].control: evaluation.scores[other].joint for other in systems}
    known = [point for point in REFERENCE_POINTS if point in points]
    results = evaluation.bootstrap.compare([(evaluation.scores[name].joint, points[point]) for point in known])
    for point, result in zip(known, results, strict=True):
        gain = result.difference
        yield Summary(f"joint_minus_{point}", gain.value, name, gain.low, gain.high, gain.count)
        yield Summary(f"joint_minus_{point}_p_value", result.p_value, name, count=gain.count)


def _judges(panel: Panel) -> dict[str, dict[str, str]]:
    return {
        "style": {"name": panel.style.name, "identity": panel.style.identity},
        "content": {"name": panel.content.name, "identity": panel.content.identity},
        "fluency": {"name": panel.fluency.name, "identity": panel.fluency.identity},
    }


def _columns(evaluation: Evaluation) -> dict[str, Any]:
    columns: dict[str, list[Any]] = {name: [] for name in ("row", "system", "source", "output")}
    for name, scores in evaluation.scores.items():
        columns["row"] += range(len(evaluation.test))
        columns["system"] += [name] * len(evaluation.test)
        columns["source"] += [pair.source for pair in evaluation.test]
        columns["output"] += evaluation.outputs[name].texts
        perplexity = [value if math.isfinite(value) else None for value in scores.likelihood.perplexity.tolist()]
        own: dict[str, list[Any]] = {metric: column.tolist() for metric, column in scores.means.items()}
        own |= {"perplexity": perplexity, "nll": scores.nll.tolist(), "num_tokens": scores.num_tokens.tolist()}
        for metric, values in own.items():
            columns.setdefault(metric, []).extend(values)
    return columns


def _interval(item: Summary) -> str:
    return f"{item.value:.3f} [{item.low:.3f}, {item.high:.3f}]"


def _number(item: Summary | None, form: str, *, scale: float = 1.0) -> str:
    return "" if item is None else form.format(item.value * scale)
