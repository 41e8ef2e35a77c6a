"""References to runs, replaced by paths where a spec enters: ``${runs.r-1k10dp4r1sxdtmjsm3.model}``.

They are resolved once, at submission, so that the recorded spec says exactly what was used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cluster.records import RunNotFound
from cluster.runs import Run, State
from cluster.store import Store
from configs.faults import Fault, SpecError
from configs.load import dump_spec, validate_spec
from configs.schema.kinds import AnySpec
from configs.schema.references import RunReference, find_run_references, resolve_run_references


def resolve_runs(spec: AnySpec, store: Store, *, may_read: Callable[[Run], bool]) -> AnySpec:
    """The spec with each reference to a run replaced by the path of the artifact that it names.

    Raises:
        SpecError: with one fault for each reference to a run that isn't there (or may not be read), has not SUCCEEDED,
            or made nothing of that name.
    """
    data = dump_spec(spec)
    references = list(find_run_references(data))
    if not references:
        return spec
    faults: list[Fault] = []
    paths: dict[tuple[str, str], str] = {}
    for reference in references:
        found = _artifacts(reference, store, may_read)
        if isinstance(found, Fault):
            faults.append(found)
        elif reference.output not in found:
            message = f"{reference.run_id} made nothing of that name"
            faults.append(Fault(reference.field, reference.value, message, f"it has {', '.join(found) or 'nothing'}"))
        else:
            paths[reference.run_id, reference.output] = found[reference.output]
    if faults:
        raise SpecError(faults)
    return validate_spec(resolve_run_references(data, lambda run_id, output: paths[run_id, output]))


def _artifacts(reference: RunReference, store: Store, may_read: Callable[[Run], bool]) -> Mapping[str, str] | Fault:
    """Name → path of what the run made, or why there is nothing to be had."""
    try:
        run = store.get(reference.run_id)
    except RunNotFound:
        run = None
    if run is None or not may_read(run):
        return Fault(reference.field, reference.value, "names no run", "`distox list --steps` shows the runs")
    if run.kind == "pipeline":
        remedy = f"name one of its steps: `distox show {run.id}` shows them"
        return Fault(reference.field, reference.value, "names a pipeline, which makes nothing itself", remedy)
    if run.state is not State.SUCCEEDED:
        remedy = "wait until it has SUCCEEDED, or name another run"
        return Fault(reference.field, reference.value, f"names a run that is {run.state}", remedy)
    return {artifact.name: artifact.path for artifact in store.artifacts(run.id)}
