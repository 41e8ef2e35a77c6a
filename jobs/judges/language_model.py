"""Trains the small GPT-2 of the embedded fluency judge, with a tokenizer of its own.

Byte-level pieces, so that every text has tokens and no two texts share them. The same texts, settings and seed give the
same judge on one machine. It is trained on one thread: matrices this small gain nothing from a second one, and on a
machine with other work a step took 30 times as long with two (their barriers wait for a core).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from configs.schema.data import JudgeTraining
from jobs.context import JobStopped, Report
from jobs.judges.fluency import negative_log_likelihood

BEGIN = "<|endoftext|>"
"""GPT-2's only special token."""
VOCAB_SIZE = 2000
"""At most; each row of logits costs as much as half a layer of the model."""
MAX_TOKENS = 256
BATCH_SIZE = 48
LEARNING_RATE = 3e-3
WARMUP_SHARE = 0.1
WEIGHT_DECAY = 0.1
REPORT_STEPS = 10
_HEAD_SIZE = 32


def train_language_model(
    texts: Sequence[str],
    training: JudgeTraining,
    folder: Path,
    *,
    seed: int,
    report: Report,
    should_stop: Callable[[], bool],
) -> None:
    """Train on the texts and write the folder: config, safetensors, tokenizer.

    Args:
        texts: both sides of the train split, so that neither side is strange to the judge.
        training: size and steps.
        folder: is made if need be.
        seed: of the weights and of the order.
        report: is told ``fluency_loss`` (nats a token) and ``share_done``.
        should_stop: is asked at every step.

    Raises:
        JobStopped: ``should_stop`` said so.
    """
    tokenizer = _train_tokenizer(texts)
    encoded = [ids[:MAX_TOKENS] for ids in tokenizer(list(texts), split_special_tokens=True).input_ids if ids]
    begin = int(tokenizer.convert_tokens_to_ids(BEGIN))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = GPT2LMHeadModel(_config(training, len(tokenizer), begin))
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    steps = training.fluency_steps
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    for step, batch in zip(range(1, steps + 1), _batches(encoded, seed), strict=False):
        if should_stop():
            raise JobStopped
        nll_BT, mask_BT = negative_log_likelihood(model, batch, begin)
        loss = (nll_BT * mask_BT).sum() / mask_BT.sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % REPORT_STEPS == 0 or step == steps:
            report({"fluency_loss": loss.item(), "share_done": step / steps}, step)
    model.eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _train_tokenizer(texts: Sequence[str]) -> Any:
    pieces = ByteLevelBPETokenizer()
    pieces.train_from_iterator(
        texts, vocab_size=VOCAB_SIZE, min_frequency=2, special_tokens=[BEGIN], show_progress=False
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=pieces._tokenizer, bos_token=BEGIN, eos_token=BEGIN, model_max_length=MAX_TOKENS + 1
    )


def _config(training: JudgeTraining, vocab_size: int, begin: int) -> GPT2Config:
    """No dropout: the judge sees each text a few times at most."""
    size = training.fluency_hidden_size
    heads = max(1, size // _HEAD_SIZE)
    while size % heads:
        heads -= 1
    return GPT2Config(
        vocab_size=vocab_size,
        n_positions=MAX_TOKENS + 1,
        n_embd=size,
        n_layer=training.fluency_layers,
        n_head=heads,
        bos_token_id=begin,
        eos_token_id=begin,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )


def _rate(step: int, steps: int) -> float:
    """Up in a tenth of the steps, then down to 0 in a straight line; both shares of ``LEARNING_RATE``."""
    warmup = max(1.0, WARMUP_SHARE * steps)
    return min((step + 1) / warmup, (steps - step) / max(1.0, steps - warmup))


def _batches(encoded: Sequence[list[int]], seed: int) -> Iterator[list[list[int]]]:
    """Batches of similar length in random order, for ever."""
    chance = random.Random(seed)  # noqa: S311 (an order, no secret)
    while True:
        order = sorted(range(len(encoded)), key=lambda row: (len(encoded[row]), chance.random()))
        starts = list(range(0, len(order), BATCH_SIZE))
        chance.shuffle(starts)
        for start in starts:
            yield [encoded[row] for row in order[start : start + BATCH_SIZE]]
