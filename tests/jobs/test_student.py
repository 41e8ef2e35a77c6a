"""The trained module against the plain T5."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from jobs.collation import Batch, EncodedPairs, TokenRow, collate
from jobs.losses import Distillation, Projection
from jobs.student import Student, output_scale
from jobs.teacher import Teacher

ROWS = tuple(TokenRow((*range(3, 3 + size), 1), (*range(10, 10 + size // 2), 1)) for size in (3, 9, 5, 4))
PAIRS = EncodedPairs(ROWS, ROWS)


def make_t5(seed: int = 0, *, d_model: int = 16, tied: bool = True) -> T5ForConditionalGeneration:
    torch.manual_seed(seed)
    settings: dict[str, Any] = {
        "vocab_size": 40,
        "d_model": d_model,
        "d_kv": 8,
        "d_ff": 32,
        "num_layers": 1,
        "num_heads": 2,
        "decoder_start_token_id": 0,
        "tie_word_embeddings": tied,
    }
    model = T5ForConditionalGeneration(T5Config(**settings))
    model.train(False)
    return model


def forward(student: Student, batch: Batch, teacher: Projection | None = None) -> torch.Tensor:
    loss: torch.Tensor = student(batch["input_ids_s"], batch["attention_mask_s"], batch["labels_s"], teacher).loss
    return loss


@pytest.mark.parametrize("tied", [True, False])
def test_without_a_teacher_the_loss_and_gradients_are_the_plain_t5s(tied: bool) -> None:
    ours, plain = make_t5(tied=tied), make_t5(tied=tied)
    batch = collate(range(4), PAIRS)
    num_positions = int((batch["labels_s"] != -100).sum())
    torch.autograd.backward(forward(Student(ours), batch) / num_positions)
    loss = plain(
        input_ids=batch["input_ids_s"], attention_mask=batch["attention_mask_s"], labels=batch["labels_s"]
    ).loss
    torch.autograd.backward(loss)
    assert output_scale(ours) == (0.25 if tied else 1.0)
    for (name, mine), other in zip(ours.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_more_padding_changes_nothing() -> None:
    student = Student(make_t5())
    alone = forward(student, collate([0], PAIRS))
    together = forward(student, collate([0, 1], PAIRS)) - forward(student, collate([1], PAIRS))
    torch.testing.assert_close(alone, together)


def test_a_student_equal_to_its_teacher_has_no_divergence() -> None:
    model = make_t5()
    batch = collate(range(4), PAIRS)
    sums = Student(model, distillation=Distillation(2.0, 1.0))(
        batch["input_ids_s"], batch["attention_mask_s"], batch["labels_s"], Teacher(make_t5()).project(batch)
    )
    assert abs(float(sums.kd)) < 1e-5
    assert sums.num_agreed == sums.num_positions
