"""Which runs the store lists, in which order, and how a name is searched; on SQLite and on PostgreSQL."""

from __future__ import annotations

import pytest

from cluster.runs import State
from cluster.store import Store
from tests.cluster import specs


def test_lists_are_newest_first_filtered_and_paged(store: Store) -> None:
    ids = [store.submit(specs.prepare(name=f"n{number % 2}"), owner="ann").id for number in range(5)]
    spec = specs.pipeline()
    parent = store.submit(spec, owner="bob")
    store.expand(parent.id, spec.steps)
    assert [run.id for run in store.list(owner="ann")] == ids[::-1]
    assert [run.id for run in store.list(owner="ann", limit=2, before=ids[3])] == [ids[2], ids[1]]
    assert [run.id for run in store.list(name="n1")] == [ids[3], ids[1]]
    assert [run.id for run in store.list(kind="pipeline")] == [parent.id]
    assert [run.id for run in store.list(top_level=True)] == [parent.id, *ids[::-1]]
    assert store.list(state=State.FAILED) == []
    assert [run.id for run in store.list(state=State.RUNNING)] == [parent.id]
    assert len(store.unfinished()) == 10
    assert store.unfinished()[0].id == ids[0]


@pytest.mark.parametrize(
    ("part", "found"),
    [
        ("night", ["Nightly", "a night_ly 100%"]),
        ("NIGHT", ["Nightly", "a night_ly 100%"]),
        ("größe", ["GRÖSSE"]),
        ("ÖSS", ["GRÖSSE"]),
        ("%", ["a night_ly 100%"]),
        ("_", ["a night_ly 100%"]),
        ("/", ["road/data"]),
        ("\\", ["back\\slash"]),
        ("100%", ["a night_ly 100%"]),
        ("nightly ", []),
        ("n%y", []),
        ("\x00", []),
    ],
)
def test_a_part_of_a_name_is_found_in_any_case_and_without_wildcards(store: Store, part: str, found: list[str]) -> None:
    for name in ("Nightly", "a night_ly 100%", "GRÖSSE", "back\\slash", "road/data", None):
        store.submit(specs.prepare(name=name), owner="ann")
    assert sorted(str(run.name) for run in store.list(name_contains=part)) == sorted(found)


def test_a_step_is_found_by_its_own_name_too(store: Store) -> None:
    spec = specs.pipeline()
    parent = store.submit(spec, owner="bob")
    store.expand(parent.id, spec.steps)
    assert [run.step for run in store.list(name_contains="TEACH")] == ["teacher"]
    assert store.list(name_contains="teach", top_level=True) == []
    assert store.list(name_contains="teach", owner="ann") == []
