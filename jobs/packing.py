"""Runs a T5 on the tokens that are there: everything but attention on one matrix of tokens, without any padding.

Rows of different lengths fill a padded batch to some two thirds; norms, projections and feed-forward layers, which are
nearly all of the work, treat each token by itself and need no batch. Only attention is laid out by row and column, and
only while it runs. Computes what the model's own ``forward`` computes, in the same modules, each called as a module (a
ZeRO-3 weight is whole only then), with the same dropout rates.

Shape letters: B rows, S or L columns, M tokens that are there, N labelled positions, D width, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import T5ForConditionalGeneration

from jobs.losses import IGNORED_LABEL


@dataclass(frozen=True)
class Layout:
    """Where the tokens of a padded batch are."""

    is_there_BS: torch.Tensor  # noqa: N815 (shape letters)
    places_M: torch.Tensor  # noqa: N815
    """Of each token in the flattened batch, row by row."""

    @classmethod
    def of(cls, is_there_BS: torch.Tensor) -> Layout:
        """The layout of the true places."""
        return cls(is_there_BS, is_there_BS.flatten().nonzero().squeeze(1))

    def pack(self, values_BS: torch.Tensor) -> torch.Tensor:
        """The values at the places, (M, …)."""
        return values_BS.flatten(0, 1).index_select(0, self.places_M)

    def unpack(self, values_MD: torch.Tensor) -> torch.Tensor:
        """The values in rows and columns, 0 elsewhere, (B, S, D)."""
        rows, columns = self.is_there_BS.shape
        if len(self.places_M) == rows * columns:
            return values_MD.view(rows, columns, -1)
        spread = values_MD.new_zeros(rows * columns, values_MD.shape[-1])
        return spread.index_copy(0, self.places_M, values_MD).view(rows, columns, -1)


def last_states(
    model: T5ForConditionalGeneration, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """The decoder's states at the labelled positions, after the final norm, before scale and projection: (N, D).

    Args:
        model: a T5; gradients flow to it where they are wanted.
        input_ids: (B, S).
        attention_mask: (B, S); 1 where there is a token, one in each row at least.
        labels: (B, L); -100 where there is none.
    """
    source = Layout.of(attention_mask.bool())
    # Up to a row's last label: a position behind it is seen by none that counts.
    target = Layout.of((labels != IGNORED_LABEL).flip(1).cumsum(1).flip(1) > 0)
    decoder_ids = model.prepare_decoder_input_ids_from_labels(labels)
    # One lookup for both stacks, which share the embedding: its gradient is of the vocabulary's size.
    ids_M = torch.cat([source.pack(input_ids), target.pack(decoder_ids)])
    embedded: torch.Tensor = model.get_input_embeddings()(ids_M)  # type: ignore[no-untyped-call]
    source_MD, target_MD = embedded.tensor_split([len(source.places_M)])
    encoded_MD = _run_stack(model.encoder, source_MD, source)
    decoded_MD = _run_stack(model.decoder, target_MD, target, encoded=(encoded_MD, source))
    return decoded_MD[target.pack(labels) != IGNORED_LABEL]


def _run_stack(
    stack: Any, hidden_MD: torch.Tensor, layout: Layout, *, encoded: tuple[torch.Tensor, Layout] | None = None
) -> torch.Tensor:
    hidden_MD = stack.dropout(hidden_MD)
    own_bias = None
    cross_bias = None if encoded is None else _hide_padding(encoded[1], hidden_MD.dtype)
    for block in stack.block:
        layers = list(block.layer)
        if own_bias is None:
            own_bias = _own_bias(layers[0].SelfAttention, layout, hidden_MD.dtype, is_causal=encoded is not None)
        hidden_MD = _attend(layers[0], layers[0].SelfAttention, hidden_MD, layout, own_bias)
        if encoded is not None:
            hidden_MD = _attend(layers[1], layers[1].EncDecAttention, hidden_MD, layout, cross_bias, encoded)
        hidden_MD = layers[-1](hidden_MD)
    final: torch.Tensor = stack.dropout(stack.final_layer_norm(hidden_MD))
    return final


def _attend(
    layer: Any,
    attention: Any,
    hidden_MD: torch.Tensor,
    layout: Layout,
    bias: torch.Tensor | None,
    encoded: tuple[torch.Tensor, Layout] | None = None,
) -> torch.Tensor:
    """One attention layer with its norm and residual; over ``encoded`` where given, else over its own tokens."""
    normed_MD = layer.layer_norm(hidden_MD)
    keys_MD, key_layout = (normed_MD, layout) if encoded is None else encoded

    def by_head(values_MD: torch.Tensor, where: Layout) -> torch.Tensor:
        values = where.unpack(values_MD)
        return values.view(*values.shape[:2], attention.n_heads, -1).transpose(1, 2)

    query = by_head(attention.q(normed_MD), layout)
    mixed_BHSd = scaled_dot_product_attention(
        query,
        by_head(attention.k(keys_MD), key_layout),
        by_head(attention.v(keys_MD), key_layout),
        attn_mask=None if bias is None else bias.to(query.dtype),
        dropout_p=attention.dropout if attention.training else 0.0,
        scale=1.0,  # a T5 has it in its weights
    )
    mixed_MD = layout.pack(mixed_BHSd.transpose(1, 2).flatten(2))
    attended: torch.Tensor = hidden_MD + layer.dropout(attention.o(mixed_MD))
    return attended


def _own_bias(attention: Any, layout: Layout, dtype: torch.dtype, *, is_causal: bool) -> torch.Tensor:
    """The relative position bias with what may not be seen hidden: (1 or B, H, S, S)."""
    columns = layout.is_there_BS.shape[1]
    bias: torch.Tensor = attention.compute_bias(columns, columns, device=layout.places_M.device)
    if is_causal:
        # Padding is behind every token that counts, so this hides it too.
        later = torch.ones(columns, columns, dtype=torch.bool, device=bias.device).triu(1)
        return bias.masked_fill(later, torch.finfo(dtype).min)
    hidden = _hide_padding(layout, dtype)
    return bias if hidden is None else bias + hidden


def _hide_padding(layout: Layout, dtype: torch.dtype) -> torch.Tensor | None:
    """(B, 1, 1, S), the lowest number where nothing is; None where every place holds a token."""
    if len(layout.places_M) == layout.is_there_BS.numel():
        return None
    hidden = torch.zeros_like(layout.is_there_BS, dtype=dtype).masked_fill(~layout.is_there_BS, torch.finfo(dtype).min)
    return hidden[:, None, None, :]
