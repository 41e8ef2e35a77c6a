"""Figures of an evaluation from values that are known: who is compared with whom, and ratios to the baseline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.schema.kinds import Evaluate
from jobs.context import Summary
from jobs.judges.fluency import FluencyJudge
from jobs.judges.panel import Panel, Scores
from jobs.metrics import Values
from jobs.pairs import Pair
from jobs.score_figure import draw_figure
from jobs.score_summaries import Evaluation, compared_systems, summarize
from jobs.score_table import render_tables
from jobs.speed import ModelSpeed
from jobs.systems import Outputs
from jobs.wording import Wording
from tests.jobs.judging import WordContent, WordStyle, language_model_folder

SYSTEMS: dict[str, Any] = {
    "the source": {"control": "copy"},
    "reference": {"control": "reference"},
    "teacher": {"model": {"name": "t"}},
    "rows of others": {"rows": "r.csv"},
    "student": {"model": {"name": "s"}},
}
TEST = tuple(Pair(f"text {number}", (f"rewrite {number}",)) for number in range(40))
STYLE = {"the source": 0.1, "reference": 0.9, "teacher": 0.8, "rows of others": 0.4, "student": 0.6}
SPEED = {
    "teacher": ModelSpeed(((0.2, 0.4), (0.2, 0.4)), (10.0, 10.0), 900_000_000, 400_000_000),
    "student": ModelSpeed(((0.1, 0.1), (0.1, 0.1)), (40.0, 60.0), 600_000_000, 100_000_000),
}


def scores(style: float) -> Scores:
    """Style varies around a mean, everything else is perfect."""
    one: Values = np.ones(len(TEST))
    noise = np.where(np.arange(len(TEST)) % 2, 0.05, -0.05)
    return Scores(1 - style + noise, one, one, one, 20 * one, 10 * one)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    fluency = FluencyJudge(str(language_model_folder(tmp_path_factory.mktemp("judge") / "fluency")))
    spec = Evaluate.model_validate(
        {
            "dataset": {"name": "d"},
            "systems": SYSTEMS,
            "judges": {"trained": "j"},
            "bootstrap": {"num_resamples": 200},
            "speed": {"rounds": 2},
        }
    )
    one: Values = np.ones(len(TEST))
    return Evaluation(
        spec,
        Panel(WordStyle(), WordContent(), fluency),
        TEST,
        {name: Outputs(("",) * len(TEST), parameters=1000 if name in SPEED else None) for name in SYSTEMS},
        {name: scores(style) for name, style in STYLE.items()},
        {name: Wording(50 * one, 0 * one, one) for name in SYSTEMS},
        SPEED,
    )


def test_what_is_no_control_is_compared_with_controls_and_with_what_stands_before_it(found: Evaluation) -> None:
    assert compared_systems(found.spec) == [
        ("teacher", "the source", "copy"),
        ("rows of others", "the source", "copy"),
        ("rows of others", "teacher", "teacher"),
        ("student", "the source", "copy"),
        ("student", "teacher", "teacher"),
        ("student", "rows of others", "rows of others"),
    ]


def test_differences_of_models_are_summaries_with_interval_and_p_value(found: Evaluation) -> None:
    values = {(item.system, item.metric): item for item in summarize(found)}
    gain = values["student", "joint_minus_teacher"]
    assert gain.low is not None
    assert gain.high is not None
    assert gain.value == pytest.approx(-0.2)
    assert gain.low <= gain.value <= gain.high < 0
    assert values["student", "joint_minus_teacher_p_value"].value < 0.05
    assert values["student", "joint_minus_rows of others"].value == pytest.approx(0.2)
    assert ("teacher", "joint_minus_student") not in values
    assert ("reference", "joint_minus_copy") not in values


def test_only_the_others_are_relative_to_the_baseline(found: Evaluation) -> None:
    values = {(item.system, item.metric): item.value for item in summarize(found)}
    assert values["student", "speedup"] == 5
    assert values["student", "latency_speedup"] == pytest.approx(3)
    assert values["student", "memory_ratio"] == 0.25
    assert values["student", "latency_p50_seconds"] == pytest.approx(0.1)
    assert values["teacher", "latency_p95_seconds"] == pytest.approx(0.4)
    assert values["teacher", "peak_memory_bytes"] == 900_000_000
    assert {system for system, metric in values if metric == "speedup"} == {"student"}


def test_small_and_large_figures_of_the_wording_have_digits_that_tell_something(found: Evaluation) -> None:
    values = [
        Summary("chrf", 8.381, system="student", low=6.452, high=10.231),
        Summary("inverse_perplexity", 0.00231, system="student", low=0.00201, high=0.00249),
        Summary("copy_rate", 0.25, system="student"),
    ]
    lines = [line for line in render_tables(found, values).split("## Wording")[1].splitlines() if "student" in line]
    assert lines[0] == "| student | 8.4 [6.5, 10.2] | 0.250 |  | 0.0023 [0.0020, 0.0025] |  |  |"


def test_the_tables_show_costs_in_units_and_every_comparison(found: Evaluation) -> None:
    text = render_tables(found, summarize(found))
    assert "| student | 1,000 | 50 | 100.0 ms | 100.0 ms | 100 MB | 600 MB | 5.00 | 3.00 | 0.25 |" in text
    assert "against teacher" in text
    lines = [line for line in text.split("## Comparisons")[1].splitlines() if line.startswith("|")][2:]
    assert [line.split(" | ")[0].strip("| ") for line in lines] == [
        f"{name} − {other}" for name, other, _ in compared_systems(found.spec)
    ]
    assert "| student − teacher | -0.200 [-0.200, -0.200]" in text


def test_a_mean_that_is_a_rounding_outside_of_its_interval_is_drawn(found: Evaluation, tmp_path: Path) -> None:
    rounded = [replace(item, low=item.value + 1e-16, high=item.value - 1e-16) for item in summarize(found)]
    draw_figure(found, rounded, tmp_path)
    assert (tmp_path / "figure.png").stat().st_size > 1000
