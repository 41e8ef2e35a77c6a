"""The tables of an evaluation as Markdown: quality, cost, comparisons; who judged stands under them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jobs.context import Summary
from jobs.judges.panel import is_gate_also_judge
from jobs.score_summaries import Evaluation, compared_systems

QUALITY = {
    "style": "style",
    "style_share": "not toxic",
    "content_source": "content vs. source",
    "content_reference": "content vs. reference",
    "fluency": "fluency",
    "joint": "joint",
}
"""Metric → heading, each with its interval."""
_FORMS = {"chrf": "{:.1f}", "inverse_perplexity": "{:.4f}"}
"""How a metric is written; others with three digits after the point, or one where they are large."""
WORDING = {
    "chrf": "chrF",
    "copy_rate": "copies",
    "length_ratio": "length ratio",
    "inverse_perplexity": "1/PPL",
    "perplexity_corpus": "corpus PPL",
    "perplexity_median": "median PPL",
}
COST = {
    "parameters": ("parameters", "{:,.0f}", 1.0),
    "bytes_on_disk": ("size on disk", "{:,.1f} MB", 1e-6),
    "rows_per_second": ("rows per second", "{:,.3g}", 1.0),
    "latency_p50_seconds": ("latency p50", "{:,.1f} ms", 1e3),
    "latency_p95_seconds": ("latency p95", "{:,.1f} ms", 1e3),
    "model_memory_bytes": ("memory of the model", "{:,.0f} MB", 1e-6),
    "peak_memory_bytes": ("peak memory of the process", "{:,.0f} MB", 1e-6),
    "speedup": ("times faster", "{:.2f}", 1.0),
    "latency_speedup": ("times faster, one by one", "{:.2f}", 1.0),
    "memory_ratio": ("memory ratio", "{:.2f}", 1.0),
}
"""Metric → heading, form, scale."""
COMPARED = ("style", "content_reference", "fluency", "joint")
SAME_JUDGE = "The gate judge of these outputs and the style judge of this table are one model: style is flattered."


def render_tables(evaluation: Evaluation, summaries: Iterable[Summary]) -> str:
    """All tables that have a line, with headings."""
    values = {(item.system, item.metric): item for item in summaries}
    names = list(evaluation.scores)
    parts = ["## Quality", "", _intervals(names, QUALITY, values), "", *_notes(evaluation), ""]
    parts += ["## Wording", "", _intervals(names, WORDING, values), "", _WORDING_NOTE, ""]
    models = [name for name in names if (name, "bytes_on_disk") in values or name in evaluation.speed]
    if models:
        parts += ["## Cost", "", _costs(models, values), "", *_cost_notes(evaluation), ""]
    compared = compared_systems(evaluation.spec)
    if compared:
        parts += ["## Comparisons", "", _comparisons(evaluation), "", _COMPARISON_NOTE, ""]
    return "\n".join(parts)


_WORDING_NOTE = (
    "chrF against the best reference, 0 to 100. Copies: share of outputs that are the source. Length ratio: characters "
    "of the output over those of the source. PPL: perplexity under the fluency judge."
)
_COMPARISON_NOTE = "Differences on the same rows with 95 % intervals and p-values of a paired bootstrap."


def _notes(evaluation: Evaluation) -> list[str]:
    panel = evaluation.panel
    judges = f"style: {panel.style.name}, content: {panel.content.name}, fluency: {panel.fluency.name}"
    notes = [f"{len(evaluation.test)} test rows; means with 95 % bootstrap intervals. Judges: {judges}."]
    if any(system.control == "reference" for system in evaluation.spec.systems.values()):
        notes.append("The reference's content vs. reference is 1 by definition: it is compared with itself.")
    if is_gate_also_judge(evaluation.spec.judges):
        notes.append(SAME_JUDGE)
    return notes


def _cost_notes(evaluation: Evaluation) -> list[str]:
    speed, engine = evaluation.spec.speed, evaluation.spec.engine
    if speed is None or not evaluation.speed:
        return []
    rows = len(next(iter(evaluation.speed.values())).latencies[0])
    return [
        f"{rows} rows, {speed.rounds} rounds in turns, {engine.name}: rows per second in batches of "
        f"{engine.batch_size}, latency one by one. Memory of the model: what loading and decoding added to a process "
        f"of its own. Times faster and memory ratio: against {evaluation.baseline}.",
    ]


def _intervals(names: Sequence[str], metrics: dict[str, str], values: dict[tuple[str, str], Summary]) -> str:
    rows = [
        [name, *(_interval(values.get((name, metric)), _FORMS.get(metric)) for metric in metrics)] for name in names
    ]
    return _table(["system", *metrics.values()], rows)


def _costs(names: Sequence[str], values: dict[tuple[str, str], Summary]) -> str:
    shown = [metric for metric in COST if any((name, metric) in values for name in names)]
    rows = [[name, *(_cost(values.get((name, metric)), metric) for metric in shown)] for name in names]
    return _table(["system", *(COST[metric][0] for metric in shown)], rows)


def _comparisons(evaluation: Evaluation) -> str:
    compared = compared_systems(evaluation.spec)
    means = evaluation.means
    keys = [(name, other, metric) for name, other, _ in compared for metric in COMPARED]
    results = evaluation.bootstrap.compare(
        [(means[name][metric], means[other][metric]) for name, other, metric in keys]
    )
    found = dict(zip(keys, results, strict=True))
    rows = []
    for name, other, _ in compared:
        items = [found[name, other, metric] for metric in COMPARED]
        cells = [
            f"{item.difference.value:+.3f} [{item.difference.low:+.3f}, {item.difference.high:+.3f}]" for item in items
        ]
        rows.append([f"{name} − {other}", *cells, f"{items[-1].p_value:.3f}"])
    return _table(["systems", *(QUALITY[metric] for metric in COMPARED), "p (joint)"], rows)


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _interval(item: Summary | None, form: str | None) -> str:
    if item is None:
        return ""
    form = form or ("{:.3f}" if abs(item.value) < 10 else "{:,.1f}")
    ends = "" if item.low is None or item.high is None else f" [{form.format(item.low)}, {form.format(item.high)}]"
    return form.format(item.value) + ends


def _cost(item: Summary | None, metric: str) -> str:
    _, form, scale = COST[metric]
    return "" if item is None else form.format(item.value * scale)
