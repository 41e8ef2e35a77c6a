"""The two engines that run a model, behind one interface: token ids in, token ids out.

CTranslate2, and Transformers as the slow reference, decode the same way, so that in float32 their beams write the same
(with ``patience: 1`` step by step; above it Transformers ends by its bound on what may still come, CTranslate2 by
count): scores divided by length ** length_penalty with the end token counted, probabilities renormalised after
suppressed tokens are taken out, the pad token never written. Samples are drawn from the same distribution, each engine
with its own random numbers. Knows no text.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import ctranslate2
import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from configs.schema.inference import Decoding, Engine, Sampling
from configs.schema.models import ModelSource
from jobs.blocklist import TokenSequence
from jobs.conversion import WEIGHTS, convert, is_exported, is_undamaged
from jobs.models import LoadedModel, load_model, load_tokenizer


class EngineError(ValueError):
    """An engine that can't run this model, or not in the asked precision; the message says what to change."""


@dataclass(frozen=True)
class Input:
    """One text to be rewritten, as tokens."""

    ids: Sequence[int]
    """Up to and with the end token."""
    suppressed: frozenset[TokenSequence] = frozenset()
    """What its outputs may not hold."""


class Backend(Protocol):
    """A loaded model. Rows are decoded independently of their neighbours, but for what ``Sampling`` says of samples."""

    tokenizer: Any

    def run(self, inputs: Sequence[Input], count: int) -> list[list[list[int]]]:
        """``count`` outputs for each input, in order: samples, or the best hypotheses of the beam, best first.

        An output goes up to and with its end token; it has none where it was cut at ``max_new_tokens``. None holds the
        pad token or a sequence that its input suppresses.
        """


def load_backend(model: ModelSource, decoding: Decoding, engine: Engine, *, num_threads: int) -> Backend:
    """Load ``model`` for inference; ``jobs.generation.load_generator`` says from what, and what is raised."""
    if engine.name == "transformers":
        return _load_transformers(model, decoding, engine, num_threads)
    return _load_ctranslate2(model, decoding, engine, num_threads)


def needs_ctranslate2(model: ModelSource) -> EngineError:
    """What to say of an exported model that Transformers is asked to run."""
    return EngineError(
        f"model {model.name!r} is exported for CTranslate2; use engine.name: ctranslate2, or name the trained model"
    )


class _CTranslate2:
    """Batched search in C++; releases the interpreter's lock."""

    def __init__(self, translator: Any, tokenizer: Any, decoding: Decoding, batch_size: int) -> None:
        self.tokenizer = tokenizer
        self._translator = translator
        self._batch_size = batch_size
        self._sampling = decoding.sampling
        self._options = {
            **(_beam_options(decoding) if decoding.sampling is None else _sampling_options(decoding.sampling)),
            "no_repeat_ngram_size": decoding.no_repeat_ngram_size,
            "max_decoding_length": decoding.max_new_tokens,
            "min_decoding_length": decoding.min_new_tokens,
            "max_input_length": 0,  # the default cuts inputs at 1,024 tokens without a word
            "return_end_token": True,  # with it the length penalty counts the end token, as Transformers does
        }

    def run(self, inputs: Sequence[Input], count: int) -> list[list[list[int]]]:
        groups: dict[frozenset[TokenSequence], list[int]] = {}
        for row, item in enumerate(inputs):
            groups.setdefault(item.suppressed, []).append(row)
        outputs: list[list[list[int]]] = [[] for _ in inputs]
        # What is suppressed holds for a whole call.
        for suppressed, rows in groups.items():
            for row, found in zip(rows, self._run([inputs[row].ids for row in rows], suppressed, count), strict=True):
                outputs[row] = found
        return outputs

    def _run(
        self, inputs: Sequence[Sequence[int]], suppressed: Iterable[TokenSequence], count: int
    ) -> list[list[list[int]]]:
        pad = (int(self.tokenizer.pad_token_id),)
        if self._sampling is not None:
            # Counts for a thread's first sample only: it then keeps its own generator.
            ctranslate2.set_random_seed(self._sampling.seed)
        # Given more rows than max_batch_size, CTranslate2 sorts them by length itself.
        results = self._translator.translate_batch(
            [self.tokenizer.convert_ids_to_tokens(ids) for ids in inputs],
            max_batch_size=_rows_at_once(self._batch_size, self._sampling, count),
            batch_type="examples",
            num_hypotheses=count,
            suppress_sequences=[self.tokenizer.convert_ids_to_tokens(list(ids)) for ids in sorted({*suppressed, pad})],
            **self._options,
        )
        return [[self.tokenizer.convert_tokens_to_ids(tokens) for tokens in result.hypotheses] for result in results]


def _beam_options(decoding: Decoding) -> dict[str, Any]:
    return {
        "beam_size": decoding.num_beams,
        "patience": decoding.patience,
        "length_penalty": decoding.length_penalty,
    }


def _sampling_options(sampling: Sampling) -> dict[str, Any]:
    return {
        "beam_size": 1,
        "sampling_temperature": sampling.temperature,
        "sampling_topk": sampling.top_k,
        "sampling_topp": sampling.top_p,
    }


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

    def run(self, inputs: Sequence[Input], count: int) -> list[list[list[int]]]:
        config = self._config(count)
        outputs: list[list[list[int]]] = [[] for _ in inputs]
        for rows in _length_batches(inputs, _rows_at_once(self._batch_size, self._decoding.sampling, count)):
            batch_inputs = [inputs[row] for row in rows]
            batch = self.tokenizer.pad({"input_ids": [list(item.ids) for item in batch_inputs]}, return_tensors="pt")
            with torch.inference_mode():
                generated = self._model.generate(
                    **batch.to(self._model.device),
                    generation_config=config,
                    logits_processor=self._processors(batch_inputs, count),
                )
            for index, ids in enumerate(generated.tolist()):
                outputs[rows[index // count]].append(self._until_end(ids[1:]))
        return outputs

    def _config(self, count: int) -> GenerationConfig:
        decoding = self._decoding
        beam = decoding.num_beams > 1 and decoding.sampling is None
        return _generation_config(
            do_sample=decoding.sampling is not None,
            num_beams=decoding.num_beams if beam else 1,
            num_return_sequences=count,
            # Without beams these two would only cause a warning.
            length_penalty=decoding.length_penalty if beam else None,
            early_stopping=(decoding.patience == 1) if beam else None,
            # _SeededChoice does what there is to do for sampling; the default would take the 50 likeliest.
            top_k=None if decoding.sampling is None else 0,
            no_repeat_ngram_size=decoding.no_repeat_ngram_size or None,
            min_new_tokens=decoding.min_new_tokens or None,
            max_new_tokens=decoding.max_new_tokens,
            renormalize_logits=True,
            pad_token_id=self.tokenizer.pad_token_id,
            eos_token_id=self.tokenizer.eos_token_id,
            decoder_start_token_id=self._model.config.decoder_start_token_id,
        )

    def _processors(self, inputs: Sequence[Input], count: int) -> LogitsProcessorList:
        pad = (int(self.tokenizer.pad_token_id),)
        suppress = _Suppress([item.suppressed | {pad} for item in inputs])
        sampling = self._decoding.sampling
        if sampling is None:
            return LogitsProcessorList([suppress])
        return LogitsProcessorList([suppress, _SeededChoice(sampling, inputs, count)])

    def _until_end(self, ids: list[int]) -> list[int]:
        end = self.tokenizer.eos_token_id
        return ids[: ids.index(end) + 1] if end in ids else ids


class _Suppress(LogitsProcessor):
    """Takes away, for each input of a batch, the tokens that would complete one of its suppressed sequences."""

    def __init__(self, suppressed: Sequence[Iterable[TokenSequence]]) -> None:
        self._suppressed = [sorted(sequences) for sequences in suppressed]

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        num_hypotheses = len(input_ids) // len(self._suppressed)
        places = [
            (row, sequence[-1])
            for row, ids in enumerate(input_ids.tolist())
            for sequence in self._suppressed[row // num_hypotheses]
            # The first token is the decoder's start, which nobody wrote.
            if len(sequence) <= len(ids) and tuple(ids[len(ids) - len(sequence) + 1 :]) == sequence[:-1]
        ]
        kept: Any = scores.clone()
        kept[tuple(torch.tensor(places).T)] = -torch.inf
        return kept  # type: ignore[no-any-return]


class _SeededChoice(LogitsProcessor):
    """Chooses each next token at random; every other token's score becomes -inf.

    The largest of scores + Gumbel noise is a draw from their softmax (Gumbel 1954; Maddison et al. 2014, eq. 2). Each
    sample has a random generator of its own, seeded with its number and its input, so that it doesn't depend on what is
    decoded beside it.
    """

    def __init__(self, sampling: Sampling, inputs: Sequence[Input], count: int) -> None:
        self._warpers: list[LogitsProcessor] = [TemperatureLogitsWarper(sampling.temperature)]
        if sampling.top_k:
            self._warpers.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1:
            self._warpers.append(TopPLogitsWarper(sampling.top_p))
        self._generators = [
            torch.Generator().manual_seed(_seed(sampling.seed, item.ids, number))
            for item in inputs
            for number in range(count)
        ]

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        for warper in self._warpers:
            scores = warper(input_ids, scores)
        size = scores.shape[-1]
        uniform = torch.stack([torch.rand(size, generator=item) for item in self._generators])
        gumbel = -(-uniform.clamp(min=1e-20).log()).log()
        chosen = (scores.float() + gumbel.to(scores.device)).argmax(-1, keepdim=True)
        others: Any = torch.full_like(scores, -torch.inf)
        return others.scatter(-1, chosen, 0.0)  # type: ignore[no-any-return]


def _seed(seed: int, ids: Sequence[int], number: int) -> int:
    digest = hashlib.blake2b(repr((seed, list(ids), number)).encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


def _rows_at_once(batch_size: int, sampling: Sampling | None, count: int) -> int:
    """The samples of one input are rows of the batch; beams aren't counted."""
    return batch_size if sampling is None else max(1, batch_size // count)


def _generation_config(**options: Any) -> GenerationConfig:
    return GenerationConfig(**options)  # type: ignore[no-untyped-call]


def _length_batches(inputs: Sequence[Input], batch_size: int) -> Iterator[list[int]]:
    """Row numbers, longest rows first, in groups of ``batch_size``."""
    order = sorted(range(len(inputs)), key=lambda row: (-len(inputs[row].ids), row))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def _load_transformers(model: ModelSource, decoding: Decoding, engine: Engine, num_threads: int) -> _Transformers:
    if model.name is not None and is_exported(Path(model.name).expanduser()):
        raise needs_ctranslate2(model)
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
