"""Speed and memory of models: the arithmetic on known times, and real processes that take turns."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from configs.schema.kinds import Detoxify
from jobs.context import JobStopped
from jobs.speed import ModelSpeed, SpeedError, measure_speed
from jobs.speed_process import serve
from tests.jobs import tiny

TEXTS = tuple(f"the house is number {number}" for number in range(10))

FAST = ModelSpeed(((0.1, 0.2, 0.3), (0.1, 0.1, 0.9)), (40.0, 60.0), 500, 100)
SLOW = ModelSpeed(((0.4, 0.4, 0.4), (0.2, 0.2, 0.2)), (10.0, 20.0), 900, 400)


def test_latency_is_taken_over_the_rows_of_all_rounds() -> None:
    assert FAST.latency(0.5) == pytest.approx(0.15)
    assert FAST.latency(1.0) == 0.9


def test_ratios_are_medians_of_ratios_within_a_round() -> None:
    assert FAST.rows_per_second == 50
    assert FAST.times_faster(SLOW) == pytest.approx((40 / 10 + 60 / 20) / 2)
    assert FAST.times_sooner(SLOW) == pytest.approx((0.4 / 0.2 + 0.2 / 0.1) / 2)
    assert FAST.memory_ratio(SLOW) == 0.25


def test_a_machine_that_slows_between_rounds_changes_no_ratio() -> None:
    def slowed(speed: ModelSpeed) -> ModelSpeed:
        late = tuple(7 * seconds for seconds in speed.latencies[1])
        return ModelSpeed((speed.latencies[0], late), (speed.rates[0], speed.rates[1] / 7), 0, 0)

    assert slowed(FAST).times_faster(slowed(SLOW)) == pytest.approx(FAST.times_faster(SLOW))
    assert slowed(FAST).times_sooner(slowed(SLOW)) == pytest.approx(FAST.times_sooner(SLOW))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    return tiny.make_model_folder(folder / "model", tiny.make_tokenizer(folder / "tokenizer"))


def spec(model: Path, **changes: Any) -> Detoxify:
    given = {"decoding": {"num_beams": 1, "max_new_tokens": 8}, "max_length": 32, **changes}
    return Detoxify.model_validate({"model": {"name": str(model)}, "input": {"path": "unused"}, **given})


@pytest.mark.soak
def test_models_take_turns_in_processes_of_their_own(model: Path, tmp_path: Path) -> None:
    long = spec(model, decoding={"num_beams": 8, "max_new_tokens": 90})
    seen: list[int] = []
    found = measure_speed(
        {"short": spec(model), "long": long},
        TEXTS,
        rounds=2,
        num_threads=1,
        folder=tmp_path,
        should_stop=lambda: False,
        done=seen.append,
    )
    assert seen == [1, 2]
    for speed in found.values():
        assert [len(times) for times in speed.latencies] == [10, 10]
        assert len(speed.rates) == 2
        assert 0 < speed.model_bytes < speed.peak_bytes < 2e9
    assert found["short"].times_faster(found["long"]) > 1.5
    assert found["short"].times_sooner(found["long"]) > 1.5


@pytest.mark.soak
def test_it_stops_between_turns_and_leaves_no_process(model: Path, tmp_path: Path) -> None:
    before = children()
    with pytest.raises(JobStopped):
        measure_speed(
            {"one": spec(model)},
            TEXTS,
            rounds=1,
            num_threads=1,
            folder=tmp_path,
            should_stop=lambda: True,
            done=lambda number: None,
        )
    assert children() == before


@pytest.mark.soak
def test_a_model_that_ends_its_process_is_named(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    (gone / "model.bin").write_bytes(b"no model")
    with pytest.raises(SpeedError, match=r"systems\.broken: the process .* ended with 1; .*speed: null"):
        measure_speed(
            {"broken": spec(gone)},
            TEXTS,
            rounds=1,
            num_threads=1,
            folder=tmp_path / "converted",
            should_stop=lambda: False,
            done=lambda number: None,
        )


def test_the_process_answers_each_request_with_a_line(model: Path) -> None:
    asked = {"spec": spec(model).model_dump_json(), "texts": TEXTS, "num_threads": 1}
    requests = StringIO("\n".join([json.dumps(asked), "latency", "rate", "memory", ""]))
    answers = StringIO()
    serve(requests, answers)
    ready, latency, rate, memory = (json.loads(line) for line in answers.getvalue().splitlines())
    assert ready == "ready"
    assert len(latency) == 10
    assert 0 < rate < 10 * max(latency) + 1
    assert 0 <= memory["added"] <= memory["peak"]


def children() -> set[int]:
    return {int(pid) for file in Path("/proc/self/task").glob("*/children") for pid in file.read_text().split()}
