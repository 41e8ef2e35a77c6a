"""Writes the detoxified text: CTranslate2, or Transformers as the slow reference, behind one interface.

Both engines decode the same way, so that in float32 they write the same (with ``patience: 1`` step by step; above it
Transformers ends by its bound on what may still come, CTranslate2 by count): beam search, scores divided by
length ** length_penalty with the end token counted, probabilities renormalised after suppressed tokens are taken out,
the pad token never written. Nothing is sampled. No output holds a blocked phrase. Inputs are never cut: callers see to
it that a text fits (``fits``). Text is never logged.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import ctranslate2
import torch
from transformers import GenerationConfig

from configs.schema.inference import Decoding, Engine, Safety
from configs.schema.models import ModelSource
from jobs.blocklist import Blocklist, TokenSequence, decode_tokens
from jobs.conversion import WEIGHTS, convert, is_exported, is_undamaged
from jobs.models import LoadedModel, check_model, load_model, load_tokenizer

MAX_RETRIES = 4
"""How often a row that wrote a blocked phrase with unforeseen tokens is decoded again, with those tokens suppressed
too, before the phrase is cut out of its text."""

CUT_OFF = "output reached decoding.max_new_tokens"
CENSORED = "blocked phrase removed after decoding"
BROKEN = "output holds bytes that make no character"


class EngineError(ValueError):
    """An engine that can't run this model, or not in the asked precision; the message says what to change."""


@dataclass(frozen=True)
class Generated:
    """One output and what is wrong with it."""

    text: str
    flaw: str | None = None
    """``CUT_OFF``, ``CENSORED``, ``BROKEN`` or None."""


class Generator(Protocol):
    """Rewrites texts, one output for each, in order. The prefix is added inside."""

    def generate(self, texts: Sequence[str]) -> list[str]:
        """The outputs; none for no texts."""

    def decode(self, texts: Sequence[str]) -> list[Generated]:
        """The outputs with their flaws."""

    def count_tokens(self, text: str) -> int:
        """Tokens of the model's input for ``text``: prefix and end token included."""

    def fits(self, text: str) -> bool:
        """Whether ``text`` is within ``max_length``, and a copy of it within ``max_new_tokens``."""


def load_generator(
    model: ModelSource,
    *,
    prefix: str,
    max_length: int,
    decoding: Decoding,
    safety: Safety,
    engine: Engine,
    num_threads: int,
) -> Generator:
    """Load ``model`` for inference, on a GPU where there is one.

    CTranslate2 takes an exported folder, or any trained T5, which it converts into a temporary folder that is gone
    before this returns. Transformers takes a trained T5 and sets torch's thread count for the process.

    Raises:
        ModelError: there is no such model.
        EngineError: the engine can't run it as asked.
        ConversionError: CTranslate2 would run it wrongly.
        ValueError: a blocked phrase is only whitespace.
    """
    blocklist = Blocklist(safety.blocklist)
    backend: _Backend
    if engine.name == "transformers":
        backend = _load_transformers(model, decoding, engine, num_threads)
    else:
        backend = _load_ctranslate2(model, decoding, engine, num_threads)
    return _TextGenerator(
        backend, blocklist, prefix=prefix, max_length=max_length, max_new_tokens=decoding.max_new_tokens
    )


def check_generator(model: ModelSource, engine: Engine) -> None:
    """See, without reading weights, that there is such a model and that this engine takes its kind.

    Raises:
        ModelError: there is no such model.
        EngineError: it is exported for the other engine.
    """
    folder = Path(model.name).expanduser() if model.name is not None else None
    if folder is None or not is_exported(folder):
        check_model(model)
        return
    if engine.name == "transformers":
        raise _needs_ctranslate2(model)
    load_tokenizer(model.tokenizer or str(folder))


def _needs_ctranslate2(model: ModelSource) -> EngineError:
    return EngineError(
        f"model {model.name!r} is exported for CTranslate2; use engine.name: ctranslate2, or name the trained model"
    )


class _Backend(Protocol):
    """An engine: token ids in, token ids out."""

    tokenizer: Any

    def run(self, inputs: Sequence[Sequence[int]], suppressed: Iterable[TokenSequence]) -> list[list[int]]:
        """The best hypothesis for each input, in order, up to and with its end token; without one where it was cut."""


class _TextGenerator:
    """Tokenizes, decodes, and sees to it that no blocked phrase comes out."""

    def __init__(
        self, backend: _Backend, blocklist: Blocklist, *, prefix: str, max_length: int, max_new_tokens: int
    ) -> None:
        self._backend = backend
        self._tokenizer = backend.tokenizer
        self._blocklist = blocklist
        self._prefix = prefix
        self._max_length = max_length
        self._max_new_tokens = max_new_tokens
        self._special = re.compile("|".join(map(re.escape, self._tokenizer.all_special_tokens)))
        self._suppressed = blocklist.sequences(self._tokenizer) | {(int(self._tokenizer.pad_token_id),)}

    def generate(self, texts: Sequence[str]) -> list[str]:
        return [item.text for item in self.decode(texts)]

    def decode(self, texts: Sequence[str]) -> list[Generated]:
        if not texts:
            return []
        inputs = self._encode([self._prefix + text for text in texts])
        outputs = self._backend.run(inputs, self._suppressed)
        extra = {row: frozenset[TokenSequence]() for row in range(len(texts))}
        for _ in range(MAX_RETRIES):
            extra = self._offenders(outputs, extra)
            self._decode_again(inputs, outputs, extra)
        return [self._finish(output) for output in outputs]

    def count_tokens(self, text: str) -> int:
        return len(self._encode([self._prefix + text])[0])

    def fits(self, text: str) -> bool:
        return self.count_tokens(text) <= self._max_length and len(self._encode([text])[0]) <= self._max_new_tokens

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids with the end token; a special token that stands in a text as text is broken by a space.

        Otherwise the HTML tag ``</s>`` in a comment would end it for the model.
        """
        broken = [self._special.sub(_break, text) for text in texts]
        ids: list[list[int]] = self._tokenizer(broken, truncation=False, verbose=False).input_ids
        return ids

    def _text(self, ids: Sequence[int]) -> str:
        return decode_tokens(self._tokenizer, ids)

    def _offenders(
        self, outputs: Sequence[Sequence[int]], extra: dict[int, frozenset[TokenSequence]]
    ) -> dict[int, frozenset[TokenSequence]]:
        """Those rows of ``extra`` that still write a blocked phrase, the tokens that write it added to their own."""
        windows = ((row, self._blocklist.window(outputs[row], self._text)) for row in extra)
        return {row: extra[row] | {window} for row, window in windows if window is not None}

    def _decode_again(
        self, inputs: Sequence[Sequence[int]], outputs: list[list[int]], extra: dict[int, frozenset[TokenSequence]]
    ) -> None:
        """Replace the outputs of these rows.

        Rows share a call only when they suppress the same, so that a row's output doesn't depend on its neighbours.
        """
        groups: dict[frozenset[TokenSequence], list[int]] = {}
        for row, sequences in extra.items():
            groups.setdefault(sequences, []).append(row)
        for sequences, rows in groups.items():
            again = self._backend.run([inputs[row] for row in rows], self._suppressed | sequences)
            for row, output in zip(rows, again, strict=True):
                outputs[row] = output

    def _finish(self, output: Sequence[int]) -> Generated:
        text = self._text(output)
        if self._blocklist.is_in(text):
            return Generated(self._blocklist.remove(text), CENSORED)
        if self._tokenizer.eos_token_id not in output:
            return Generated(text, CUT_OFF)
        # Pieces of single bytes can be combined into no character, which decodes to U+FFFD.
        return Generated(text, BROKEN if "\ufffd" in text else None)


def _break(match: re.Match[str]) -> str:
    return f"{match[0][0]} {match[0][1:]}"


class _CTranslate2:
    """Batched beam search in C++; releases the interpreter's lock."""

    def __init__(self, translator: Any, tokenizer: Any, decoding: Decoding, batch_size: int) -> None:
        self.tokenizer = tokenizer
        self._translator = translator
        self._batch_size = batch_size
        self._options = {
            "beam_size": decoding.num_beams,
            "patience": decoding.patience,
            "length_penalty": decoding.length_penalty,
            "no_repeat_ngram_size": decoding.no_repeat_ngram_size,
            "max_decoding_length": decoding.max_new_tokens,
            "min_decoding_length": 0,
            "max_input_length": 0,  # the default cuts inputs at 1,024 tokens without a word
            "return_end_token": True,  # with it the length penalty counts the end token, as Transformers does
        }

    def run(self, inputs: Sequence[Sequence[int]], suppressed: Iterable[TokenSequence]) -> list[list[int]]:
        # Given more rows than max_batch_size, CTranslate2 sorts them by length itself.
        results = self._translator.translate_batch(
            [self.tokenizer.convert_ids_to_tokens(ids) for ids in inputs],
            max_batch_size=self._batch_size,
            batch_type="examples",
            suppress_sequences=[self.tokenizer.convert_ids_to_tokens(list(ids)) for ids in sorted(suppressed)],
            **self._options,
        )
        return [self.tokenizer.convert_tokens_to_ids(result.hypotheses[0]) for result in results]


class _Transformers:
    """``generate`` in batches of similar length, padded to the longest."""

    def __init__(self, loaded: LoadedModel, decoding: Decoding, batch_size: int) -> None:
        self.tokenizer = loaded.tokenizer
        # Typed as Any: the annotations of generate fit no concrete model.
        self._model: Any = loaded.model
        # Whatever the model's folder says about generation must not seep in.
        self._model.generation_config = _generation_config()
        self._decoding = decoding
        self._batch_size = batch_size

    def run(self, inputs: Sequence[Sequence[int]], suppressed: Iterable[TokenSequence]) -> list[list[int]]:
        config = self._config(suppressed)
        outputs: list[list[int]] = [[] for _ in inputs]
        for rows in _length_batches(inputs, self._batch_size):
            batch = self.tokenizer.pad({"input_ids": [list(inputs[row]) for row in rows]}, return_tensors="pt")
            with torch.inference_mode():
                generated = self._model.generate(**batch.to(self._model.device), generation_config=config)
            for row, ids in zip(rows, generated.tolist(), strict=True):
                outputs[row] = self._until_end(ids[1:])
        return outputs

    def _config(self, suppressed: Iterable[TokenSequence]) -> GenerationConfig:
        beam = self._decoding.num_beams > 1
        return _generation_config(
            do_sample=False,
            num_beams=self._decoding.num_beams,
            # Without beams these two would only cause a warning.
            length_penalty=self._decoding.length_penalty if beam else None,
            early_stopping=(self._decoding.patience == 1) if beam else None,
            no_repeat_ngram_size=self._decoding.no_repeat_ngram_size or None,
            max_new_tokens=self._decoding.max_new_tokens,
            bad_words_ids=[list(ids) for ids in sorted(suppressed)] or None,
            renormalize_logits=True,
            pad_token_id=self.tokenizer.pad_token_id,
            eos_token_id=self.tokenizer.eos_token_id,
            decoder_start_token_id=self._model.config.decoder_start_token_id,
        )

    def _until_end(self, ids: list[int]) -> list[int]:
        end = self.tokenizer.eos_token_id
        return ids[: ids.index(end) + 1] if end in ids else ids


def _generation_config(**options: Any) -> GenerationConfig:
    return GenerationConfig(**options)  # type: ignore[no-untyped-call]


def _length_batches(inputs: Sequence[Sequence[int]], batch_size: int) -> Iterator[list[int]]:
    """Row numbers, longest rows first, in groups of ``batch_size``."""
    order = sorted(range(len(inputs)), key=lambda row: (-len(inputs[row]), row))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def _load_transformers(model: ModelSource, decoding: Decoding, engine: Engine, num_threads: int) -> _Transformers:
    if model.name is not None and is_exported(Path(model.name).expanduser()):
        raise _needs_ctranslate2(model)
    types = {"auto": torch.float32, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if engine.compute_type not in types:
        raise EngineError(
            f"engine.compute_type is {engine.compute_type!r}, which only ctranslate2 has; use one of {', '.join(types)}"
        )
    loaded = load_model(model)
    torch.set_num_threads(num_threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model_on_device: Any = loaded.model
    model_on_device.to(device=device, dtype=types[engine.compute_type]).eval()
    return _Transformers(loaded, decoding, engine.batch_size)


def _load_ctranslate2(model: ModelSource, decoding: Decoding, engine: Engine, num_threads: int) -> _CTranslate2:
    folder = Path(model.name).expanduser() if model.name is not None else None
    if folder is not None and is_exported(folder):
        if not is_undamaged(folder):
            raise EngineError(f"model {model.name!r}: {WEIGHTS} is not what was exported; export the model again")
        compute_type = "default" if engine.compute_type == "auto" else engine.compute_type
        translator = _open_translator(folder, compute_type, num_threads)
        return _CTranslate2(translator, load_tokenizer(model.tokenizer or str(folder)), decoding, engine.batch_size)
    loaded = load_model(model)
    with tempfile.TemporaryDirectory(prefix="distox-convert-") as temporary:
        convert(loaded, Path(temporary), "float32")
        compute_type = "float32" if engine.compute_type == "auto" else engine.compute_type
        translator = _open_translator(Path(temporary), compute_type, num_threads)
    return _CTranslate2(translator, loaded.tokenizer, decoding, engine.batch_size)


def _open_translator(folder: Path, compute_type: str, num_threads: int) -> Any:
    device = "cuda" if ctranslate2.get_cuda_device_count() > 0 else "cpu"
    try:
        return ctranslate2.Translator(
            str(folder), device=device, compute_type=compute_type, inter_threads=1, intra_threads=num_threads
        )
    except ValueError as error:
        types = ", ".join(sorted(ctranslate2.get_supported_compute_types(device)))
        raise EngineError(
            f"engine.compute_type is {compute_type!r}, which this {device} can't compute; use auto or one of {types}"
        ) from error
    except (RuntimeError, IndexError) as error:
        raise EngineError(f"model {str(folder)!r} can't be loaded by CTranslate2; export it again") from error
