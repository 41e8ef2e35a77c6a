"""Turns a Transformers T5 into the files that CTranslate2 runs.

What is written computes what the Transformers model computes, in the asked precision: output scaling and the norm's
epsilon are taken from the model's own config, and a model that the format can't express is refused. Knows neither
decoding options nor specs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ctranslate2
import torch
from ctranslate2.converters.converter import Converter
from ctranslate2.converters.transformers import _SUPPORTED_ACTIVATIONS, T5Loader
from ctranslate2.specs.model_spec import OPTIONAL

from jobs.digests import weights_sha256
from jobs.model_record import read_record
from jobs.models import LoadedModel

WEIGHTS = "model.bin"
"""The file that makes a folder a CTranslate2 model."""

_TOLERANCE = {"float32": 1e-3, "float16": 0.02, "bfloat16": 0.05, "int8": 0.2, "int8_bfloat16": 0.2}
"""Largest relative difference of log-probabilities. Seen on tiny models: 1e-7, 2e-4, 1e-3, 0.02, 0.02; an output scale
that is wrong gives far more than 1."""

_PROBE = "This is how you check a model: say it again, in other words!"
"""The sentence whose scores are compared; any will do."""


class ConversionError(ValueError):
    """A model that CTranslate2 can't run, or would run wrongly; the message says why."""


def is_exported(folder: Path) -> bool:
    """Whether ``folder`` holds a CTranslate2 model."""
    return (folder / WEIGHTS).is_file()


def is_undamaged(folder: Path) -> bool:
    """Whether the weights are those that the record names; true where there is no record.

    Raises:
        RecordError: the record can't be read.
    """
    record = read_record(folder)
    expected = None if record is None else record.weights_sha256
    return expected is None or expected == weights_sha256(folder)


def convert(loaded: LoadedModel, folder: Path, quantization: str) -> float:
    """Write ``loaded`` into the new or empty ``folder``: weights in ``quantization``, and the tokenizer's files.

    Uses the model up: CTranslate2 rescales its weights in place, so afterwards it computes something else.

    Returns:
        How far the written model is from the original: the mean absolute difference of the log-probabilities of one
        sentence's tokens, relative to 1 + their mean size; about 1e-7 for float32.

    Raises:
        ConversionError: CTranslate2 has no operation for something in this model, its vocabulary has holes, or what
            was written computes something else.
    """
    _check_convertible(loaded)
    expected = _reference_scores(loaded)
    _Converter(loaded).convert(str(folder), quantization=quantization, force=True)
    loaded.tokenizer.save_pretrained(folder)
    difference = _difference(expected, _converted_scores(folder, loaded.tokenizer))
    # A NaN is no number below the limit either.
    if not difference <= _TOLERANCE[quantization]:
        raise ConversionError(
            f"model: converted to {quantization} it scores a sentence differently (relative difference "
            f"{difference:.3g}, allowed {_TOLERANCE[quantization]:g}); choose another quantization, float32 is exact"
        )
    return difference


class _T5Loader(T5Loader):  # type: ignore[misc]
    """T5 with the output scale and the epsilon of its own config.

    The upstream loader takes the scale from ``tie_word_embeddings``, which Transformers 5 sets for every T5; T5 v1.1
    and Flan, which don't scale, would come out with logits d_model ** 0.5 times too small.
    """

    def get_model_spec(self, model: Any) -> Any:
        spec = super().get_model_spec(model)
        spec.decoder.scale_outputs = model.config.d_model**-0.5 if model.config.scale_decoder_outputs else OPTIONAL
        return spec

    def set_config(self, config: Any, model: Any, tokenizer: Any) -> None:
        super().set_config(config, model, tokenizer)
        config.layer_norm_epsilon = model.config.layer_norm_epsilon


class _Converter(Converter):  # type: ignore[misc]
    """Converts a model that is loaded already: one road for folders, hub names and models made on the spot."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded

    def _load(self) -> Any:
        with torch.no_grad():
            return _T5Loader()(self._loaded.model, self._loaded.tokenizer)


def _check_convertible(loaded: LoadedModel) -> None:
    config = loaded.model.config
    if config.dense_act_fn not in _SUPPORTED_ACTIVATIONS:
        raise ConversionError(
            f"model: CTranslate2 {ctranslate2.__version__} has no activation {config.dense_act_fn!r}; "
            "use engine.name: transformers for this model"
        )
    if sorted(loaded.tokenizer.get_vocab().values()) != list(range(len(loaded.tokenizer))):
        raise ConversionError(
            "model: the tokenizer's ids have holes, and CTranslate2 numbers tokens without any; "
            "train or name a tokenizer whose ids run from 0 without a gap"
        )


def _reference_scores(loaded: LoadedModel) -> list[float]:
    ids = loaded.tokenizer(_PROBE, return_tensors="pt").input_ids
    with torch.inference_mode():
        logits = loaded.model(input_ids=ids, labels=ids).logits[0]
    scores: list[float] = logits.float().log_softmax(-1).gather(1, ids[0, :, None])[:, 0].tolist()
    return scores


def _converted_scores(folder: Path, tokenizer: Any) -> list[float]:
    translator = ctranslate2.Translator(str(folder), device="cpu", inter_threads=1, intra_threads=1)
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(_PROBE).input_ids)
    # score_batch adds the end token to the target itself.
    scores: list[float] = translator.score_batch([tokens], [tokens[:-1]])[0].log_probs
    return scores


def _difference(expected: list[float], actual: list[float]) -> float:
    size = sum(abs(value) for value in expected) / len(expected)
    distance = sum(abs(one - other) for one, other in zip(expected, actual, strict=True)) / len(expected)
    return distance / (1 + size)
