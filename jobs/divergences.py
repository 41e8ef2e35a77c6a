"""How far a student's distribution is from its teacher's: forward KL, reverse KL, and Jensen-Shannon with a weight.

With p the teacher's and q the student's probabilities at one position::

    forward_kl       Σ_v p · log(p / q)                                        covers what the teacher may say
    reverse_kl       Σ_v q · log(q / p)                                        keeps to what the teacher would say
    jensen_shannon   β · Σ_v p · log(p / m) + (1 - β) · Σ_v q · log(q / m),    m = β · p + (1 - β) · q

The third is the generalised Jensen-Shannon divergence of Agarwal et al. 2024 (arXiv 2306.13649, eq. 1): over β it tends
to forward KL as β → 0, over 1 - β to reverse KL as β → 1. Each is exactly 0 for equal logits and never divides by a
probability. Knows neither labels nor temperature: the logits are tempered already, and a caller multiplies by T².

Shape letters: C positions of a chunk, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

MAX_LOG_RATIO = 80.0
"""exp of it is finite in fp32; a token that far apart adds nothing that fp32 could hold."""


class Distance(NamedTuple):
    """The sum over positions and vocabulary, and its gradient with respect to the student's tempered logits."""

    value: torch.Tensor
    """Scalar."""
    gradient: torch.Tensor
    """(C, V)."""


Divergence = Callable[[torch.Tensor, torch.Tensor], Distance]
"""``divergence(log_q_CV, log_p_CV)``: log-probabilities of student and teacher; both tensors are overwritten."""


def forward_kl(log_q_CV: torch.Tensor, log_p_CV: torch.Tensor) -> Distance:
    """KL(teacher || student); its gradient is ``q - p``."""
    # In place, here and below: a fresh buffer of this size costs more in page faults than the arithmetic does.
    p = log_p_CV.exp()
    log_ratio = log_p_CV.sub_(log_q_CV)
    difference = log_q_CV.exp_().sub_(p)
    # Σ(q - p) is 0 but for rounding, and cancels to first order the rounding of the two normalisers, which T² would
    # magnify: without it a large T drowns the value in noise.
    return Distance(p.mul_(log_ratio).add_(difference).sum(), difference)


def reverse_kl(log_q_CV: torch.Tensor, log_p_CV: torch.Tensor) -> Distance:
    """KL(student || teacher); with r = log(q / p), its gradient is ``q · (r - Σ_v q · r)``."""
    log_ratio = log_q_CV.sub(log_p_CV)
    q = log_q_CV.exp_()
    correction = log_p_CV.exp_().sub_(q).sum()  # as in forward_kl
    weighted = q * log_ratio
    mean_C1 = weighted.sum(dim=-1, keepdim=True)
    return Distance(mean_C1.sum() + correction, weighted.sub_(q.mul_(mean_C1)))


def jensen_shannon(log_q_CV: torch.Tensor, log_p_CV: torch.Tensor, *, beta: float) -> Distance:
    """Generalised Jensen-Shannon divergence; with g = (1 - β) · log(q / m), its gradient is ``q · (g - Σ_v q · g)``.

    Args:
        log_q_CV: of the student; overwritten.
        log_p_CV: of the teacher; overwritten.
        beta: weight of the teacher in the mixture, above 0 and below 1.
    """
    log_ratio = log_q_CV.sub(log_p_CV).clamp_(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    # log(p / m) = -log(β + (1 - β) · q / p), written so that q = p gives exactly 0.
    log_p_m = torch.expm1(log_ratio).mul_(1 - beta).log1p_().neg_()
    log_q_m = log_ratio.add_(log_p_m)
    teacher_side = log_p_CV.exp_().mul_(log_p_m).sum()
    q = log_q_CV.exp_()
    weighted = log_q_m.mul_(q)
    mean_C1 = weighted.sum(dim=-1, keepdim=True)
    value = beta * teacher_side + (1 - beta) * mean_C1.sum()
    return Distance(value, weighted.sub_(q.mul_(mean_C1)).mul_(1 - beta))
