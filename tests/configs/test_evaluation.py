"""Specs of evaluations: how speed is measured, and which names systems may have."""

from __future__ import annotations

import pytest

from configs.load import SpecError, dump_spec, parse_spec, validate_spec
from configs.schema.kinds import Evaluate

EVALUATE = "kind: evaluate\ndataset: {name: a}\njudges: {trained: j}\nsystems:\n  copy: {control: copy}\n"
MODELS = "  teacher: {model: {name: t}}\n  student: {model: {name: s}}\n"


def test_speed_is_measured_unless_it_is_left_out() -> None:
    spec = parse_spec(EVALUATE + MODELS)
    assert isinstance(spec, Evaluate)
    assert spec.speed is not None
    assert (spec.speed.rows, spec.speed.rounds, spec.speed.baseline) == (64, 3, None)
    assert list(spec.models) == ["teacher", "student"]
    without = parse_spec(EVALUATE + MODELS + "speed: null\n")
    assert isinstance(without, Evaluate)
    assert without.speed is None
    assert validate_spec(dump_spec(without)) == without


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MODELS + "speed: {baseline: tutor}", r"speed\.baseline = .*no system with a model; use one of teacher, stud"),
        (MODELS + "speed: {baseline: copy}", r"speed\.baseline = .*no system with a model"),
        ("speed: {baseline: teacher}", r"speed\.baseline = .*no system with a model; remove it"),
        (MODELS + "speed: {rows: 0}", r"speed\.rows = 0.*greater than 0"),
        (MODELS + "speed: {rounds: 101}", r"speed\.rounds = 101.*100"),
        ("  delete: {rows: a.csv}", r"systems\.delete: .*name of a control.*rename it, or give it control: delete"),
    ],
)
def test_what_could_not_be_measured_or_told_apart_is_refused(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse_spec(EVALUATE + text)
