"""First in, first out, whole gangs or nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.scheduler import Ask, Capacity, Node, ask_of, decide
from configs.load import dump_spec
from tests.cluster import specs

ASKS = st.builds(Ask, st.integers(1, 4), st.integers(1, 4), st.sampled_from([0.0, 0.5, 1.0]))
NODES = st.lists(st.builds(Node, st.integers(0, 8), st.integers(0, 2)), min_size=1, max_size=4)


def test_training_counts_its_ranks_and_other_kinds_are_one_worker() -> None:
    resources = {"cpus": 3, "gpus": 0.5}
    two = specs.finetune(training={"num_workers": 2}, resources=resources)
    assert ask_of(dump_spec(two)) == Ask(2, 3, 0.5)
    assert ask_of(dump_spec(specs.finetune(resources={"num_workers": 4}))) == Ask(4, 1, 0)
    assert ask_of(dump_spec(specs.prepare(resources={"num_workers": 4, "cpus": 2}))) == Ask(1, 2, 0)


def test_a_worker_is_never_spread_over_machines() -> None:
    two_small = Capacity((Node(2), Node(2)))
    assert two_small.could_hold(Ask(2, 2, 0))
    assert not two_small.could_hold(Ask(1, 4, 0))
    assert not two_small.could_hold(Ask(1, 1, 1))
    assert Capacity((Node(8, 1),)).could_hold(Ask(2, 4, 0.5))


def test_the_head_of_the_line_is_not_overtaken() -> None:
    decision = decide([("a", Ask(1, 2, 0)), ("b", Ask(1, 1, 0))], [Ask(1, 1, 0)], Capacity((Node(2),)))
    assert decision.start == ()
    assert set(decision.waiting) == {"a", "b"}
    assert decision.impossible == frozenset()


def test_an_impossible_run_is_set_aside_with_its_reason() -> None:
    decision = decide([("a", Ask(2, 1, 1)), ("b", Ask(1, 1, 0))], [], Capacity((Node(2),)))
    assert decision.start == ("b",)
    assert decision.impossible == {"a"}
    assert decision.waiting["a"].startswith("asks for 2 × (1 CPU, 1 GPU), and the whole cluster has 2 CPUs;")


@given(st.lists(ASKS, max_size=8), st.lists(ASKS, max_size=2), NODES)
def test_what_is_started_always_fits_and_in_order(queue: list[Ask], load: list[Ask], nodes: list[Node]) -> None:
    capacity = Capacity(tuple(nodes))
    named = [(str(index), ask) for index, ask in enumerate(queue)]
    decision = decide(named, load, capacity)
    started = [dict(named)[name] for name in decision.start]
    if started:
        assert sum(ask.total_cpus for ask in [*load, *started]) <= capacity.cpus
        assert sum(ask.total_gpus for ask in [*load, *started]) <= capacity.gpus
    assert set(decision.start) | set(decision.waiting) == {name for name, _ in named}
    assert not set(decision.start) & set(decision.waiting)
    # Everything possible before the last started one has started too.
    possible = [name for name, ask in named if capacity.could_hold(ask)]
    assert list(decision.start) == possible[: len(decision.start)]


@given(st.lists(ASKS, min_size=1, max_size=8), NODES)
def test_on_an_empty_cluster_the_first_possible_run_starts(queue: list[Ask], nodes: list[Node]) -> None:
    capacity = Capacity(tuple(nodes))
    decision = decide([(str(index), ask) for index, ask in enumerate(queue)], [], capacity)
    assert bool(decision.start) == any(capacity.could_hold(ask) for ask in queue)


@pytest.mark.parametrize("module", ["scheduler", "runs", "pipeline", "reconciler", "follow", "submit", "launch"])
def test_importing_it_loads_neither_torch_nor_ray(module: str) -> None:
    code = f"import sys, cluster.{module}; print([n for n in ('torch', 'ray', 'redis', 'alembic') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
