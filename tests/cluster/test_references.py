"""References to runs: replaced by paths at the door, or refused with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.references import resolve_runs
from cluster.runs import Run, State
from cluster.store import Store
from configs.load import SpecError, dump_spec
from jobs.context import JobResult
from tests.cluster.specs import detoxify, finetune, pipeline


def anybody(run: Run) -> bool:
    return True


def finished(store: Store, output: Path) -> Run:
    run = store.enqueue(store.submit(finetune(), owner="ada").id)
    epoch = store.begin_attempt(run.id)
    store.start(run.id, epoch)
    store.finish(run.id, epoch, State.SUCCEEDED, result=JobResult({"model": "model"}), output=str(output))
    return store.get(run.id)


def refused(store: Store, reference: str) -> str:
    with pytest.raises(SpecError) as caught:
        resolve_runs(detoxify(model={"name": reference}), store, may_read=anybody)
    (fault,) = caught.value.faults
    assert fault.field == "model.name"
    return str(fault)


def test_a_reference_becomes_the_path_of_the_artifact(store: Store, tmp_path: Path) -> None:
    run = finished(store, tmp_path)
    spec = detoxify(model={"name": f"${{runs.{run.id}.model}}"})
    resolved = dump_spec(resolve_runs(spec, store, may_read=anybody))
    assert resolved == {**dump_spec(spec), "model": {**dump_spec(spec)["model"], "name": str(tmp_path / "model")}}


def test_a_step_may_refer_to_a_run_and_to_another_step(store: Store, tmp_path: Path) -> None:
    run = finished(store, tmp_path)
    steps = dump_spec(pipeline())["steps"]
    steps["student"]["teacher_model"]["name"] = f"${{runs.{run.id}.model}}"
    resolved = dump_spec(resolve_runs(pipeline(steps=steps), store, may_read=anybody))["steps"]
    assert resolved["student"]["teacher_model"]["name"] == str(tmp_path / "model")
    assert resolved["student"]["dataset"]["name"] == "${steps.data.dataset}"


def test_a_spec_without_such_references_is_given_back_as_it_is(store: Store) -> None:
    spec = pipeline()
    assert resolve_runs(spec, store, may_read=anybody) is spec


def test_each_reference_that_leads_nowhere_is_refused_with_the_remedy(store: Store, tmp_path: Path) -> None:
    run = finished(store, tmp_path)
    waiting = store.submit(finetune(), owner="ada")
    road = store.submit(pipeline(), owner="ada")
    assert "names no run" in refused(store, "${runs.r-0000000000000000zz.model}")
    assert "made nothing of that name; it has model" in refused(store, f"${{runs.{run.id}.dataset}}")
    assert "is PENDING; wait until it has SUCCEEDED" in refused(store, f"${{runs.{waiting.id}.model}}")
    assert f"pipeline, which makes nothing itself; name one of its steps: `distox show {road.id}`" in refused(
        store, f"${{runs.{road.id}.model}}"
    )


def test_somebody_elses_run_is_refused_like_one_that_is_not_there(store: Store, tmp_path: Path) -> None:
    run = finished(store, tmp_path)
    spec = detoxify(model={"name": f"${{runs.{run.id}.model}}"})
    with pytest.raises(SpecError, match="names no run"):
        resolve_runs(spec, store, may_read=lambda run: run.owner == "bob")
