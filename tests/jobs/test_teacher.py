"""The teacher stays frozen beside the student, and its kept states are those of a fresh run."""

from __future__ import annotations

import pytest
import torch

from jobs.collation import collate
from jobs.losses import Distillation
from jobs.student import Student
from jobs.teacher import Teacher
from tests.jobs.test_student import PAIRS, ROWS, forward, make_t5


def test_the_teacher_has_no_dropout_and_no_gradient_when_the_student_trains() -> None:
    frozen = make_t5(1, d_model=24)
    teacher = Teacher(frozen, cache_bytes=0)
    student = Student(make_t5(), distillation=Distillation(2.0, 1.0))
    student.train()
    batch = collate(range(4), PAIRS)
    first, second = teacher.project(batch), teacher.project(batch)
    assert torch.equal(first.hidden, second.hidden)
    torch.autograd.backward(forward(student, batch, first))
    assert not frozen.training
    assert all(parameter.grad is None for parameter in frozen.parameters())
    assert not any(parameter is weight for parameter in student.parameters() for weight in frozen.parameters())


def test_kept_states_are_those_of_a_fresh_run_in_any_mixture_of_rows() -> None:
    model = make_t5(1)
    keeping, fresh = Teacher(model), Teacher(model, cache_bytes=0)
    for rows in ([0, 1], [2, 3]):
        keeping.project(collate(rows, PAIRS))
    model.encoder = None  # type: ignore[assignment]
    kept = keeping.project(collate([3, 0, 2, 1], PAIRS)).hidden
    fresh = Teacher(make_t5(1), cache_bytes=0)
    torch.testing.assert_close(kept, fresh.project(collate([3, 0, 2, 1], PAIRS)).hidden)


def test_nothing_more_is_kept_when_the_room_is_full() -> None:
    model = make_t5(1)
    one_row = ROWS[0]
    teacher = Teacher(model, cache_bytes=len(one_row.labels) * 16 * 4)
    teacher.project(collate([0], PAIRS))
    teacher.project(collate([1], PAIRS))
    model.encoder = None  # type: ignore[assignment]
    teacher.project(collate([0], PAIRS))
    with pytest.raises(TypeError):
        teacher.project(collate([1], PAIRS))


def test_a_batch_without_rows_gives_no_states() -> None:
    teacher = Teacher(make_t5(1))
    assert teacher.project(collate([], PAIRS)).hidden.shape == (0, 16)
