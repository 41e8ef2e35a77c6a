"""A T5 run on its tokens alone, against its own ``forward`` on a padded batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from jobs.losses import IGNORED_LABEL
from jobs.packing import Layout, last_states

SOURCE_LENGTHS, TARGET_LENGTHS = (7, 3, 9, 1), (2, 6, 1, 4)


def make_t5(**settings: Any) -> T5ForConditionalGeneration:
    torch.manual_seed(0)
    shape = {"vocab_size": 50, "d_model": 24, "d_kv": 8, "d_ff": 40, "num_layers": 2, "num_heads": 3}
    config = T5Config(**(shape | {"num_decoder_layers": 3, "decoder_start_token_id": 0} | settings))
    model = T5ForConditionalGeneration(config)
    model.train(False)
    return model


def make_batch(source_lengths: tuple[int, ...], target_lengths: tuple[int, ...]) -> dict[str, torch.Tensor]:
    chance = torch.Generator().manual_seed(1)
    rows, source, target = len(source_lengths), max(source_lengths) + 2, max(target_lengths) + 3
    ids = torch.randint(3, 50, (rows, source), generator=chance)
    labels = torch.randint(3, 50, (rows, target), generator=chance)
    mask = torch.arange(source) < torch.tensor(source_lengths)[:, None]
    labels[torch.arange(target) >= torch.tensor(target_lengths)[:, None]] = IGNORED_LABEL
    return {"input_ids": ids * mask, "attention_mask": mask.long(), "labels": labels}


def padded_states(model: T5ForConditionalGeneration, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """What the model's own stacks give at the labelled positions."""
    encoded = model.encoder(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    decoded: torch.Tensor = model.decoder(
        model.prepare_decoder_input_ids_from_labels(batch["labels"]),
        encoder_hidden_states=encoded,
        encoder_attention_mask=batch["attention_mask"],
        use_cache=False,
    ).last_hidden_state
    return decoded[batch["labels"] != IGNORED_LABEL]


@pytest.mark.parametrize(
    "settings",
    [{}, {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}, {"num_layers": 1, "num_decoder_layers": 1}],
    ids=["T5", "T5 1.1", "one layer"],
)
def test_states_and_gradients_are_those_of_the_padded_model(settings: dict[str, Any]) -> None:
    model, batch = make_t5(**settings), make_batch(SOURCE_LENGTHS, TARGET_LENGTHS)
    found: list[tuple[torch.Tensor, dict[str, torch.Tensor]]] = []
    for run in (padded_states, lambda model, batch: last_states(model, **batch)):
        model.zero_grad()
        states = run(model, batch)
        torch.autograd.backward((states * torch.linspace(-1, 1, states.shape[1])).sum())
        found.append((states, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}))
    (expected, expected_grads), (states, grads) = found
    assert states.shape == (sum(TARGET_LENGTHS), 24)
    torch.testing.assert_close(states, expected, rtol=1e-5, atol=1e-6)
    assert grads.keys() == expected_grads.keys()
    torch.testing.assert_close(grads, expected_grads, rtol=1e-4, atol=1e-6)


def test_a_label_left_out_in_the_middle_of_a_row_changes_nothing_for_the_others() -> None:
    model, batch = make_t5(), make_batch(SOURCE_LENGTHS, TARGET_LENGTHS)
    batch["labels"][1, 2] = IGNORED_LABEL
    torch.testing.assert_close(last_states(model, **batch), padded_states(model, batch), rtol=1e-5, atol=1e-6)


def test_a_row_without_labels_gives_no_state() -> None:
    model, batch = make_t5(), make_batch(SOURCE_LENGTHS, (2, 0, 1, 0))
    torch.testing.assert_close(last_states(model, **batch), padded_states(model, batch), rtol=1e-5, atol=1e-6)


def test_a_batch_without_labels_gives_every_weight_a_gradient_of_zero() -> None:
    """A rank with nothing to do takes part in every collective."""
    model, batch = make_t5(), make_batch((1,), (0,))
    states = last_states(model, **batch)
    assert states.shape == (0, 24)
    torch.autograd.backward(states.sum())
    expected = {name: torch.zeros_like(weight) for name, weight in model.named_parameters()}
    assert {name: weight.grad for name, weight in model.named_parameters()}.keys() == expected.keys()
    torch.testing.assert_close({name: p.grad for name, p in model.named_parameters()}, expected)


def test_a_full_batch_is_laid_out_as_it_is() -> None:
    model, batch = make_t5(), make_batch((4, 4), (3, 3))
    full = {"input_ids": batch["input_ids"][:, :4], "attention_mask": batch["attention_mask"][:, :4]}
    full["labels"] = batch["labels"][:, :3]
    torch.testing.assert_close(last_states(model, **full), padded_states(model, full), rtol=1e-5, atol=1e-6)


def test_dropout_is_on_in_a_model_that_is_trained_and_off_in_one_that_is_not() -> None:
    model, batch = make_t5(dropout_rate=0.5), make_batch(SOURCE_LENGTHS, TARGET_LENGTHS)
    assert torch.equal(last_states(model, **batch), last_states(model, **batch))
    model.train()
    assert not torch.equal(last_states(model, **batch), last_states(model, **batch))


def test_packing_and_unpacking_keep_every_value_in_its_place() -> None:
    is_there = torch.tensor([[True, False, True], [False, True, True]])
    layout = Layout.of(is_there)
    values = torch.arange(12.0).view(2, 3, 2)
    packed = layout.pack(values)
    assert packed[:, 0].tolist() == [0.0, 4.0, 8.0, 10.0]
    assert torch.equal(layout.unpack(packed), values * is_there[:, :, None])
