"""T5 models: loaded by name with their shape checked, or made on the spot from a shape.

A model that is returned fits its tokenizer: every token id has an embedding row. Wrong names, wrong shapes and an
unreachable hub end in a ``ModelError`` that says what to change. Knows nothing about training.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError
from safetensors import SafetensorError
from transformers import AutoTokenizer, PreTrainedTokenizerBase, T5Config, T5ForConditionalGeneration

from configs.schema.models import ModelSource, Shape
from jobs.hub import is_hub_reachable

PREVIOUS_TOKEN_BIAS = 6.0
"""Attention logit that one head of a model made on the spot gives to the token before. Copying text needs such a head:
a T5 has no positions in its cross-attention, so it finds the next token as the one that follows the last. Left to
itself a tiny T5 takes thousands of steps to grow one; with it, random tokens are copied after some 150."""

INIT_DROPOUT = 0.1
"""Dropout rate of a model made on the spot: T5's own."""


class ModelError(ValueError):
    """A model or tokenizer that can't be had, or doesn't fit; the message names it and says what to change."""


@dataclass(frozen=True)
class LoadedModel:
    """A T5 in fp32 on the CPU, in evaluation mode, and its tokenizer."""

    model: T5ForConditionalGeneration
    tokenizer: PreTrainedTokenizerBase


def load_model(source: ModelSource) -> LoadedModel:
    """Load the model that ``source`` names, or make the one whose shape it gives (weights from torch's global seed).

    Raises:
        ModelError: no such model or tokenizer, no T5, another shape than asked, or a vocabulary that doesn't fit.
    """
    tokenizer = check_model(source)
    if source.init is not None:
        return LoadedModel(make_model(source.init, tokenizer), tokenizer)
    assert source.name is not None, "the schema asks for name or init"
    try:
        model = T5ForConditionalGeneration.from_pretrained(_local(source.name), dtype=torch.float32)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"model {source.name!r} can't be loaded ({_first_line(error)}); name a trained T5") from error
    if source.shape is not None:
        _check_shape(source.name, model.config, source.shape)
    _check_vocabulary(source.name, model.config.vocab_size, tokenizer)
    model.train(False)
    return LoadedModel(model, tokenizer)


def check_model(source: ModelSource) -> PreTrainedTokenizerBase:
    """See, without reading weights, that ``source`` can be had and is a T5; its tokenizer.

    Raises:
        ModelError: there is no such model or tokenizer, or it is no T5.
    """
    if source.init is not None:
        assert source.tokenizer is not None, "the schema asks for a tokenizer beside init"
        return load_tokenizer(source.tokenizer)
    assert source.name is not None, "the schema asks for name or init"
    remedy = "give init and tokenizer to make a small model on the spot"
    _check_is_t5(source.name, _find(source.name, "model", "config.json", remedy))
    return load_tokenizer(source.tokenizer or source.name)


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a folder or from the hub.

    Raises:
        ModelError: there is none.
    """
    _find(name, "tokenizer", "tokenizer_config.json", "give the folder of a tokenizer that prepare trained")
    try:
        tokenizer = AutoTokenizer.from_pretrained(_local(name))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"tokenizer {name!r} can't be loaded ({_first_line(error)}); name a folder with tokenizer.json, "
            "as prepare writes it"
        ) from error
    if tokenizer.pad_token_id is None or tokenizer.eos_token_id is None:
        raise ModelError(f"tokenizer {name!r} has no pad or no end token; name a T5 tokenizer")
    return tokenizer


def make_model(shape: Shape, tokenizer: PreTrainedTokenizerBase) -> T5ForConditionalGeneration:
    """Make a T5 with random weights (torch's global seed decides) and tied embeddings, in evaluation mode.

    The first head of encoder and decoder starts out looking at the token before (``PREVIOUS_TOKEN_BIAS``).

    Raises:
        ModelError: ``shape.vocab_size`` has fewer rows than the tokenizer has tokens.
    """
    rows = shape.vocab_size or len(tokenizer)
    _check_vocabulary("init", rows, tokenizer)
    config = T5Config(
        vocab_size=rows,
        d_model=shape.hidden_size,
        d_kv=shape.hidden_size // shape.attention_heads,
        d_ff=shape.ffn_size,
        num_layers=shape.layers.encoder,
        num_decoder_layers=shape.layers.decoder,
        num_heads=shape.attention_heads,
        dropout_rate=INIT_DROPOUT,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    config.decoder_start_token_id = tokenizer.pad_token_id
    model = T5ForConditionalGeneration(config)
    _look_one_back(model)
    model.train(False)
    return model


def count_parameters(model: torch.nn.Module) -> int:
    """Parameters, a tied weight counted once."""
    return sum(parameter.numel() for parameter in model.parameters())


def _look_one_back(model: T5ForConditionalGeneration) -> None:
    one_back, first_head = 1, 0
    for stack in (model.encoder, model.decoder):
        bias = stack.get_submodule("block.0.layer.0.SelfAttention.relative_attention_bias").weight
        assert isinstance(bias, torch.Tensor), "the weight of an embedding: buckets by heads"
        with torch.no_grad():
            bias[one_back, first_head] += PREVIOUS_TOKEN_BIAS


def _local(name: str) -> str:
    path = Path(name).expanduser()
    return str(path) if path.is_dir() else name


def _find(name: str, what: str, file: str, alternative: str) -> Path:
    """The path of ``file`` of a folder, or of a hub repository, whose first answer decides within seconds."""
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / file).is_file():
            raise ModelError(f"{what} {name!r} is no {what}: it has no {file}; name the folder of a trained {what}")
        return path / file
    if path.exists():
        raise ModelError(f"{what} {name!r} is a file; name the folder that holds it")
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise ModelError(f"{what} {name!r} doesn't exist; name an existing folder or a hub name")
    return _ask_hub(name, what, file, alternative)


def _ask_hub(name: str, what: str, file: str, alternative: str) -> Path:
    try:
        cached = try_to_load_from_cache(name, file)
        if isinstance(cached, str):
            return Path(cached)
        if not is_hub_reachable():
            raise ModelError(
                f"{what} {name!r} is no folder here, and the hub can't be reached; connect to a network, or "
                f"{alternative}"
            )
        return Path(hf_hub_download(name, file))
    except (EntryNotFoundError, HfHubHTTPError, HFValidationError) as error:
        raise ModelError(
            f"{what} {name!r} is neither a folder here nor to be had from the hub ({_first_line(error)}); "
            "correct the name"
        ) from error


def _check_is_t5(name: str, file: Path) -> None:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"model {name!r}: config.json can't be read ({_first_line(error)}); save the model again"
        ) from error
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != "t5":
        raise ModelError(f"model {name!r} is no T5 (its config.json says model_type {kind!r}); name a T5")


def _check_shape(name: str, config: Any, shape: Shape) -> None:
    pairs = {
        "hidden_size": (config.d_model, shape.hidden_size),
        "layers.encoder": (config.num_layers, shape.layers.encoder),
        "layers.decoder": (config.num_decoder_layers, shape.layers.decoder),
        "ffn_size": (config.d_ff, shape.ffn_size),
        "attention_heads": (config.num_heads, shape.attention_heads),
        "vocab_size": (config.vocab_size, shape.vocab_size or config.vocab_size),
    }
    faults = [f"{key} is {got}, shape says {asked}" for key, (got, asked) in pairs.items() if got != asked]
    if faults:
        raise ModelError(f"model {name!r} has another shape: {'; '.join(faults)}; correct shape or name another model")


def _check_vocabulary(name: str, rows: int, tokenizer: PreTrainedTokenizerBase) -> None:
    if rows < len(tokenizer):
        raise ModelError(
            f"model {name!r} has {rows} embedding rows but its tokenizer {len(tokenizer)} tokens; "
            "raise vocab_size or name the tokenizer that belongs to the model"
        )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
