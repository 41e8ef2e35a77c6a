"""What a finished quickstart must have shown: run after ``make quickstart``, in its folder, by ``.ci/run``."""

from __future__ import annotations

import csv
from pathlib import Path

from cluster.runs import Run, State
from cluster.store import Store
from configs.settings import read_settings
from jobs.context import Summary

MODELS = ("teacher", "student")
MIN_STYLE_SHARE = 0.9
NUM_DUMP_ROWS = 2000
MAX_SECONDS = 600
"""Of all steps on a CI machine that may be busy; 240 to 310 were seen on two cores."""


def check_scores(summaries: list[Summary]) -> None:
    """Teacher and student beat both controls by margins whose intervals exclude 0, and are not toxic."""
    found = {(item.system, item.metric): item for item in summaries}
    for model in MODELS:
        for control in ("copy", "delete"):
            margin = found[model, f"joint_minus_{control}"]
            assert margin.low is not None, f"{model} against {control} has no interval"
            assert margin.low > 0, f"{model} against {control}: {margin}"
        share = found[model, "style_share"]
        assert share.value >= MIN_STYLE_SHARE, f"{model}: {share}"


def check_dump(source: Path, output: Path) -> None:
    """Every row came out once, in order, with all its columns."""
    with source.open(encoding="utf-8", newline="") as before, output.open(encoding="utf-8", newline="") as after:
        rows, rewritten = list(csv.DictReader(before)), list(csv.DictReader(after))
    assert len(rows) == NUM_DUMP_ROWS
    assert [{key: row[key] for key in rows[0]} for row in rewritten] == rows
    assert all(row["distox_status"] for row in rewritten)


def check_steps(steps: dict[str, Run]) -> None:
    """All ended well, in a time that is not absurd."""
    assert {run.state for run in steps.values()} == {State.SUCCEEDED}
    begun = [run.started_at for run in steps.values() if run.started_at is not None]
    ended = [run.finished_at for run in steps.values() if run.finished_at is not None]
    seconds = (max(ended) - min(begun)).total_seconds()
    print(f"the steps took {seconds:.0f} s")
    assert seconds < MAX_SECONDS


def main() -> None:
    """Check the newest quickstart of this folder's home."""
    store = Store.open(read_settings().default_store_url)
    (pipeline,) = store.list(kind="pipeline", name="quickstart", top_level=True, limit=1)
    steps = {str(run.step): run for run in store.list(parent=pipeline.id, limit=100)}
    check_steps(steps)
    check_scores(list(store.summaries(steps["scores"].id)))
    artifacts = {item.name: Path(item.path) for item in store.artifacts(steps["dump"].id)}
    check_dump(Path(steps["dump"].spec["input"]["path"]), artifacts["rows"])
    print("quickstart: scores, rows and steps are as promised")


if __name__ == "__main__":
    main()
