"""The chunked loss against a slow reference that writes the formulas out position by position."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from jobs.divergences import Divergence, forward_kl, jensen_shannon, reverse_kl
from jobs.losses import IGNORED_LABEL, Distillation, LossSums, Projection, sum_losses

VOCABULARY = 37
STUDENT_WIDTH, TEACHER_WIDTH = 12, 20
STUDENT_SCALE = STUDENT_WIDTH**-0.5
BETA = 0.3
DIVERGENCES: dict[str, Divergence] = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jensen_shannon": partial(jensen_shannon, beta=BETA),
}


def labelled(states_BLD: torch.Tensor, labels_BL: torch.Tensor) -> torch.Tensor:
    """The states at the positions that count, row by row: (N, D)."""
    return states_BLD[labels_BL != IGNORED_LABEL]


def make_case(
    lengths: list[int], padded: int, *, seed: int = 0, dtype: torch.dtype = torch.float64
) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64).to(dtype)

    labels_BL = torch.full((len(lengths), padded), IGNORED_LABEL)
    for row, length in enumerate(lengths):
        labels_BL[row, :length] = torch.randint(VOCABULARY, (length,), generator=random)
    return {
        "labels": labels_BL,
        "hidden": normal(len(lengths), padded, STUDENT_WIDTH) * 3,
        "weight": normal(VOCABULARY, STUDENT_WIDTH),
        "teacher_hidden": normal(len(lengths), padded, TEACHER_WIDTH) * 3,
        "teacher_weight": normal(VOCABULARY, TEACHER_WIDTH),
    }


def slow_sums(case: dict[str, torch.Tensor], temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Plain loops over positions and vocabulary in whatever precision the case has."""
    ce = torch.zeros((), dtype=case["hidden"].dtype)
    kd = torch.zeros((), dtype=case["hidden"].dtype)
    for row, position in (case["labels"] != IGNORED_LABEL).nonzero().tolist():
        ours = case["weight"] @ (case["hidden"][row, position] * STUDENT_SCALE)
        theirs = case["teacher_weight"] @ case["teacher_hidden"][row, position]
        ce = ce - torch.log(torch.softmax(ours, 0)[case["labels"][row, position]])
        p_T, p_S = torch.softmax(theirs / temperature, 0), torch.softmax(ours / temperature, 0)
        for token in range(VOCABULARY):
            kd = kd + temperature**2 * p_T[token] * (torch.log(p_T[token]) - torch.log(p_S[token]))
    return ce, kd


def fast_sums(
    case: dict[str, torch.Tensor],
    temperature: float,
    kd_weight: float,
    chunk: int | None,
    divergence: Divergence = forward_kl,
) -> LossSums:
    labels = case["labels"]
    return sum_losses(
        Projection(labelled(case["hidden"], labels), case["weight"], STUDENT_SCALE),
        labels[labels != IGNORED_LABEL],
        teacher=Projection(labelled(case["teacher_hidden"], labels), case["teacher_weight"], 1.0),
        distillation=Distillation(temperature, kd_weight, divergence),
        chunk_size=chunk,
    )


def with_gradients(case: dict[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The same case with fresh leaves."""
    return {
        name: value.detach().clone().to(dtype).requires_grad_(name in {"hidden", "weight"})
        if value.is_floating_point()
        else value
        for name, value in case.items()
    }


def gradient(leaf: torch.Tensor) -> torch.Tensor:
    assert leaf.grad is not None
    return leaf.grad


def relative_error(got: torch.Tensor, wanted: torch.Tensor) -> float:
    got, wanted = got.detach().double(), wanted.detach().double()
    return float((got - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 8.0])
@pytest.mark.parametrize("chunk", [1, 3, 1000, None])
@pytest.mark.parametrize(("lengths", "padded"), [([5, 2, 7], 8), ([1], 1), ([4, 4], 16)])
def test_values_and_gradients_are_those_of_the_slow_reference(
    lengths: list[int], padded: int, chunk: int | None, temperature: float
) -> None:
    case = make_case(lengths, padded)
    slow, fast = with_gradients(case, torch.float64), with_gradients(case, torch.float32)
    ce, kd = slow_sums(slow, temperature)
    torch.autograd.backward(ce + 0.7 * kd)
    sums = fast_sums(fast, temperature, 0.7, chunk)
    torch.autograd.backward(sums.loss)
    assert relative_error(sums.ce, ce) < 1e-5
    assert relative_error(sums.kd, kd) < 1e-5
    assert relative_error(sums.loss, ce + 0.7 * kd) < 1e-5
    assert relative_error(gradient(fast["hidden"]), gradient(slow["hidden"])) < 1e-5
    assert relative_error(gradient(fast["weight"]), gradient(slow["weight"])) < 1e-5
    assert sums.num_positions == sum(lengths)


def slow_divergence(case: dict[str, torch.Tensor], temperature: float, name: str) -> torch.Tensor:
    """T² times the divergence, position by position and token by token, as the formulas of jobs.divergences say."""
    total = torch.zeros((), dtype=case["hidden"].dtype)
    for row, position in (case["labels"] != IGNORED_LABEL).nonzero().tolist():
        q = torch.softmax(case["weight"] @ (case["hidden"][row, position] * STUDENT_SCALE) / temperature, 0)
        p = torch.softmax(case["teacher_weight"] @ case["teacher_hidden"][row, position] / temperature, 0)
        if name == "reverse_kl":
            total = total + (q * torch.log(q / p)).sum()
        else:
            m = BETA * p + (1 - BETA) * q
            total = total + BETA * (p * torch.log(p / m)).sum() + (1 - BETA) * (q * torch.log(q / m)).sum()
    return temperature**2 * total


@pytest.mark.parametrize("temperature", [0.5, 2.0, 8.0])
@pytest.mark.parametrize("chunk", [1, 1000])
@pytest.mark.parametrize("name", ["reverse_kl", "jensen_shannon"])
def test_the_other_divergences_are_those_of_their_slow_references(name: str, chunk: int, temperature: float) -> None:
    case = make_case([5, 2, 7], 8)
    slow, fast = with_gradients(case, torch.float64), with_gradients(case, torch.float32)
    kd = slow_divergence(slow, temperature, name)
    torch.autograd.backward(kd)
    sums = fast_sums(fast, temperature, 1.0, chunk, DIVERGENCES[name])
    torch.autograd.backward(sums.loss - sums.ce)
    assert relative_error(sums.kd, kd) < 1e-5
    without_ce = with_gradients(case, torch.float32)
    torch.autograd.backward(fast_sums(without_ce, temperature, 0.0, chunk).loss)
    for leaf in ("hidden", "weight"):
        assert relative_error(gradient(fast[leaf]) - gradient(without_ce[leaf]), gradient(slow[leaf])) < 1e-4


def test_jensen_shannon_tends_to_the_two_kl_divergences() -> None:
    case = make_case([5, 3], 8, dtype=torch.float32)
    # Not too far apart: the nearer two distributions are, the sooner the limits are reached.
    case["teacher_hidden"] = case["teacher_hidden"] / 10
    case["hidden"] = case["hidden"] / 3
    forward = fast_sums(case, 2.0, 1.0, None).kd
    reverse = fast_sums(case, 2.0, 1.0, None, reverse_kl).kd
    little, almost_one = (
        fast_sums(case, 2.0, 1.0, None, partial(jensen_shannon, beta=beta)).kd for beta in (1e-3, 1 - 1e-3)
    )
    assert relative_error(little / 1e-3, forward) < 0.01
    assert relative_error(almost_one / 1e-3, reverse) < 0.01
    assert relative_error(forward, reverse) > 0.02


def test_an_incoming_gradient_scales_ours() -> None:
    case = make_case([3, 4], 4)
    once, thrice = with_gradients(case, torch.float32), with_gradients(case, torch.float32)
    torch.autograd.backward(fast_sums(once, 2.0, 0.7, 2).loss)
    torch.autograd.backward(fast_sums(thrice, 2.0, 0.7, 2).loss * 3)
    torch.testing.assert_close(gradient(thrice["weight"]), gradient(once["weight"]) * 3)


@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl", "jensen_shannon"])
def test_equal_logits_have_exactly_no_divergence_at_any_temperature(name: str) -> None:
    case = make_case([6, 3], 8, dtype=torch.float32)
    case |= {"teacher_hidden": case["hidden"], "teacher_weight": case["weight"]}
    labels = case["labels"]
    for temperature in (0.1, 1.0, 2.0, 1000.0):
        same = Projection(labelled(case["hidden"], labels), case["weight"], STUDENT_SCALE)
        sums = sum_losses(
            same,
            labels[labels != IGNORED_LABEL],
            teacher=same,
            distillation=Distillation(temperature, 1.0, DIVERGENCES[name]),
        )
        assert sums.kd == 0.0
        assert sums.num_agreed == sums.num_positions


def test_a_batch_of_padding_alone_gives_zero_and_finite_gradients() -> None:
    case = with_gradients(make_case([0, 0], 8), torch.float32)
    sums = fast_sums(case, 2.0, 0.7, None)
    torch.autograd.backward(sums.loss)
    assert [float(value.detach()) for value in sums] == [0.0] * len(sums)
    assert not gradient(case["hidden"]).any()
    assert not gradient(case["weight"]).any()


def test_states_under_padding_change_nothing() -> None:
    case = make_case([3, 1], 8, dtype=torch.float32)
    before = fast_sums(case, 2.0, 0.7, None)
    padding = case["labels"] == IGNORED_LABEL
    case["hidden"][padding] = math.nan
    case["teacher_hidden"][padding] = math.inf
    assert fast_sums(case, 2.0, 0.7, None) == before


def test_a_large_temperature_tends_to_half_the_variance_of_the_logit_difference() -> None:
    case = make_case([5, 8], 8)
    labels = case["labels"]
    difference = (
        labelled(case["teacher_hidden"], labels) @ case["teacher_weight"].T
        - labelled(case["hidden"] * STUDENT_SCALE, labels) @ case["weight"].T
    )
    limit = difference.var(dim=-1, correction=0).sum() / 2
    narrow = {name: value.float() if value.is_floating_point() else value for name, value in case.items()}
    assert relative_error(fast_sums(narrow, 1000.0, 1.0, None).kd, limit) < 0.05


@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl", "jensen_shannon"])
def test_far_apart_logits_stay_finite(name: str) -> None:
    case = with_gradients(make_case([4], 4), torch.float32)
    case["teacher_hidden"] = case["teacher_hidden"] * 1000
    sums = fast_sums(case, 1.0, 1.0, None, DIVERGENCES[name])
    torch.autograd.backward(sums.loss)
    assert torch.isfinite(sums.loss)
    assert torch.isfinite(gradient(case["hidden"])).all()


def test_the_sum_runs_over_the_vocabulary_and_the_mean_over_positions() -> None:
    case = make_case([5, 3], 8, dtype=torch.float32)
    labels = case["labels"]
    ours = labelled(case["hidden"] * STUDENT_SCALE, labels) @ case["weight"].T
    theirs = labelled(case["teacher_hidden"], labels) @ case["teacher_weight"].T
    batchmean = torch.nn.functional.kl_div(
        torch.log_softmax(ours / 2, -1), torch.softmax(theirs / 2, -1), reduction="batchmean"
    )
    sums = fast_sums(case, 2.0, 0.7, None)
    assert relative_error(sums.kd / sums.num_positions, 4 * batchmean) < 1e-5


def test_correct_and_agreed_positions_are_counted() -> None:
    weight = torch.eye(3)
    hidden = torch.tensor([[9.0, 0, 0], [0, 9.0, 0], [0, 0, 9.0]])
    teacher = torch.tensor([[9.0, 0, 0], [9.0, 0, 0], [9.0, 0, 0]])
    sums = sum_losses(
        Projection(hidden, weight, 1.0),
        torch.tensor([0, 1, 1]),
        teacher=Projection(teacher, weight, 1.0),
        distillation=Distillation(1.0, 1.0),
    )
    assert (int(sums.num_correct), int(sums.num_agreed)) == (2, 1)


def test_two_vocabularies_are_refused() -> None:
    with pytest.raises(ValueError, match="4 logits and the student 5; give both models the same vocab_size"):
        sum_losses(
            Projection(torch.zeros(1, 2), torch.zeros(5, 2), 1.0),
            torch.zeros(1, dtype=torch.long),
            teacher=Projection(torch.zeros(1, 2), torch.zeros(4, 2), 1.0),
            distillation=Distillation(1.0, 1.0),
        )


def test_without_weight_the_teacher_is_left_out() -> None:
    case = make_case([2], 2, dtype=torch.float32)
    sums = fast_sums(case, 2.0, 0.0, None)
    assert sums.kd == 0
    assert sums.loss == sums.ce
