"""The training loss: cross-entropy plus temperature-scaled KL divergence, summed over the labelled positions only.

With z the logits, T the temperature and y the labels, over the positions whose label is not -100::

    ce_sum = -Σ_n log softmax(z_S)[y_n]
    kd_sum = T² · Σ_n Σ_v p_T(v) · (log p_T(v) - log p_S(v)),   p = softmax(z / T)
    loss   = ce_sum + kd_weight · kd_sum

The KL term is that of Hinton et al. 2015 (arXiv 1503.02531), whose factor T² keeps its gradient's size independent of
T; another divergence (``jobs.divergences``) may stand in its place. It sums over the vocabulary; the caller divides by
the number of positions of the whole optimizer step. Hidden states are projected to logits in chunks and the gradient is
made in the same pass, so that neither logits nor softmax of full size are ever kept.

Knows nothing about models, batches or ranks.

Shape letters: B batch, L target length, N labelled positions, C positions of a chunk, D width of a model, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable

from jobs.divergences import Divergence, forward_kl

IGNORED_LABEL = -100
"""Positions with this label are padding: they count nowhere."""

CHUNK_LOGITS = 2**22
"""Logits projected at once (C times V), unless the caller says otherwise: 16 MiB in fp32."""


class Projection(NamedTuple):
    """The last hidden states at the labelled positions, and what turns them into logits."""

    hidden: torch.Tensor
    """(N, D)."""
    weight: torch.Tensor
    """(V, D)."""
    scale: float
    """Factor on the states before the projection: ``d_model ** -0.5`` for a T5 that scales its decoder's outputs."""


@dataclass(frozen=True)
class Distillation:
    """What the teacher's term is."""

    temperature: float
    """T, above 0."""
    kd_weight: float
    """Factor of KD in the loss; at 0 the teacher is not projected, and ``kd`` and ``num_agreed`` are 0."""
    divergence: Divergence = forward_kl


CROSS_ENTROPY = Distillation(temperature=1.0, kd_weight=0.0)
"""No teacher's term."""


class LossSums(NamedTuple):
    """Sums over the labelled positions, as scalar tensors in fp32; zero where there is no such position."""

    loss: torch.Tensor
    """``ce + kd_weight * kd``; the only member that carries a gradient."""
    ce: torch.Tensor
    kd: torch.Tensor
    """0 without a teacher."""
    num_positions: torch.Tensor
    num_correct: torch.Tensor
    """Positions whose most likely token is the label."""
    num_agreed: torch.Tensor
    """Positions whose most likely token is also the teacher's; 0 without a teacher."""


def sum_losses(
    student: Projection,
    labels_N: torch.Tensor,
    *,
    teacher: Projection | None = None,
    distillation: Distillation = CROSS_ENTROPY,
    chunk_size: int | None = None,
) -> LossSums:
    """Sum CE and KD over N positions.

    Args:
        student: gradients flow to its hidden states and its weight.
        labels_N: no -100 among them.
        teacher: its logits have the student's width V; no gradient flows to it. None leaves KD out.
        distillation: temperature, weight and divergence of the KD term.
        chunk_size: positions projected at once; changes memory, not the value.

    Raises:
        ValueError: the two vocabularies have different sizes.
    """
    if teacher is not None and teacher.weight.shape[0] != student.weight.shape[0]:
        raise ValueError(
            f"the teacher has {teacher.weight.shape[0]} logits and the student {student.weight.shape[0]}; "
            "give both models the same vocab_size"
        )
    if distillation.kd_weight == 0:
        teacher = None
    chunk = chunk_size or max(1, CHUNK_LOGITS // student.weight.shape[0])
    outputs = _ChunkedLoss.apply(  # type: ignore[no-untyped-call]
        student.hidden, student.weight, student.scale, labels_N, teacher, distillation, chunk
    )
    return LossSums(*outputs)


class _ChunkedLoss(torch.autograd.Function):
    """The sums and, in the same pass, the gradient of ``loss``; backward only multiplies by the incoming one."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: torch.Tensor,
        weight_VD: torch.Tensor,
        scale: float,
        labels_N: torch.Tensor,
        teacher: Projection | None,
        distillation: Distillation,
        chunk: int,
    ) -> tuple[torch.Tensor, ...]:
        needs_grad = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        grad_hidden_ND = torch.empty_like(hidden_ND) if needs_grad else None
        grad_weight_VD: torch.Tensor | None = None
        totals = torch.zeros(4, dtype=torch.float32, device=hidden_ND.device)
        for start in range(0, labels_N.shape[0], chunk):
            part = slice(start, start + chunk)
            hidden_CD = hidden_ND[part] * scale
            logits_CV = (hidden_CD @ weight_VD.T).float()
            teacher_CV = None if teacher is None else _project(teacher, part)
            grad_CV = _add_chunk(totals, logits_CV, labels_N[part], teacher_CV, distillation, needs_grad)
            if grad_hidden_ND is not None and grad_CV is not None:
                grad_CV = grad_CV.to(weight_VD.dtype)
                grad_hidden_ND[part] = (grad_CV @ weight_VD) * scale
                grad_weight_VD = _add_product(grad_weight_VD, grad_CV.T, hidden_CD)
        if grad_hidden_ND is not None:
            grad_weight_VD = torch.zeros_like(weight_VD) if grad_weight_VD is None else grad_weight_VD
            ctx.save_for_backward(grad_hidden_ND, grad_weight_VD.to(weight_VD.dtype))
        ce, kd, num_correct, num_agreed = totals.unbind()
        num_positions = torch.full_like(ce, labels_N.shape[0])
        loss = ce + distillation.kd_weight * kd
        sums = (loss, ce.clone(), kd.clone(), num_positions, num_correct.clone(), num_agreed.clone())
        ctx.mark_non_differentiable(*sums[1:])
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        grad_hidden_ND, grad_weight_VD = ctx.saved_tensors
        factor = grads[0]
        assert factor is not None, "loss was used, so its gradient exists"
        # In place: nobody else has them, and one of them is as large as the vocabulary's embedding.
        return grad_hidden_ND.mul_(factor), grad_weight_VD.mul_(factor), None, None, None, None, None


def _add_product(total: torch.Tensor | None, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """``total + one @ other`` in fp32, without a second buffer of its size where the factors are fp32."""
    if total is None:
        return (one @ other).float()
    return total.addmm_(one, other) if one.dtype == other.dtype == torch.float32 else total.add_(one @ other)


def _project(side: Projection, part: slice) -> torch.Tensor:
    return ((side.hidden[part] * side.scale) @ side.weight.T).float()


def _add_chunk(
    totals: torch.Tensor,
    logits_CV: torch.Tensor,
    labels_C: torch.Tensor,
    teacher_CV: torch.Tensor | None,
    distillation: Distillation,
    needs_grad: bool,
) -> torch.Tensor | None:
    """Add one chunk to the totals (ce, kd, correct, agreed); return d loss / d logits when it is needed."""
    log_p_CV = torch.log_softmax(logits_CV, dim=-1)
    totals[0] -= log_p_CV.gather(1, labels_C[:, None]).sum()
    best_C = logits_CV.argmax(dim=-1)
    totals[2] += (best_C == labels_C).sum()
    grad_CV = None
    if needs_grad:
        grad_CV = log_p_CV.exp_()
        grad_CV[torch.arange(labels_C.shape[0], device=labels_C.device), labels_C] -= 1.0
    if teacher_CV is None:
        return grad_CV
    totals[3] += (best_C == teacher_CV.argmax(dim=-1)).sum()
    temperature = distillation.temperature
    # In place: a fresh buffer of this size costs more in page faults than the arithmetic does.
    log_q_CV = torch.log_softmax(logits_CV.div_(temperature), dim=-1)
    distance = distillation.divergence(log_q_CV, torch.log_softmax(teacher_CV.div_(temperature), dim=-1))
    totals[1] += temperature**2 * distance.value
    if grad_CV is not None:
        grad_CV.add_(distance.gradient, alpha=distillation.kd_weight * temperature)
    return grad_CV
