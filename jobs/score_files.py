"""The files that an evaluation leaves behind.

``rows.parquet`` has one line for each row and system with the texts and all values, ``scores.json`` every figure and
who judged, ``table.md`` the tables, ``figure.png`` and ``figure.svg`` quality against speed where speed was measured.
The judges are named everywhere, so that embedded ones are never taken for hub judges.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jobs.context import Summary
from jobs.judges.panel import Panel, is_gate_also_judge
from jobs.score_figure import draw_figure
from jobs.score_summaries import Evaluation, compare_all
from jobs.score_table import render_tables

VERSION = 1
ROWS_FILE, SCORES_FILE, TABLE_FILE = "rows.parquet", "scores.json", "table.md"


def write_files(evaluation: Evaluation, summaries: Sequence[Summary], folder: Path) -> None:
    """Write all files, ``scores.json`` last."""
    import pyarrow
    import pyarrow.parquet

    folder.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(_columns(evaluation)), folder / ROWS_FILE)
    (folder / TABLE_FILE).write_text(render_tables(evaluation, summaries), encoding="utf-8")
    if evaluation.speed:
        draw_figure(evaluation, summaries, folder)
    text = json.dumps(_scores(evaluation, summaries), indent=2, ensure_ascii=False, allow_nan=False)
    (folder / SCORES_FILE).write_text(text + "\n", encoding="utf-8")


def _scores(evaluation: Evaluation, summaries: Sequence[Summary]) -> dict[str, Any]:
    content = evaluation.panel.content
    return {
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
        "speed": {
            "baseline": evaluation.baseline,
            "batch_size": evaluation.spec.engine.batch_size,
            "systems": {name: asdict(item) for name, item in evaluation.speed.items()},
        }
        if evaluation.speed
        else None,
    }


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
        own: dict[str, list[Any]] = {metric: column.tolist() for metric, column in evaluation.means[name].items()}
        own |= {"perplexity": perplexity, "nll": scores.nll.tolist(), "num_tokens": scores.num_tokens.tolist()}
        for metric, values in own.items():
            columns.setdefault(metric, []).extend(values)
    return columns
