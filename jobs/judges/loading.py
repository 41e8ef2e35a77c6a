"""Loads a judge's model from a folder or a hub, and says in one line why it can't.

What every judge that is a Transformers model shares: where it comes from, what identifies it, how long a text may be.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError
from transformers import AutoTokenizer

from jobs.data import looks_local
from jobs.hub import is_hub_reachable

EMBEDDED = "embedded"
"""The name of the judges that need no hub."""
MAX_TOKENS = 512
"""Longer texts are cut for a judge: the length that the published judges were trained on."""
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "gate.npz")


Batch = TypeVar("Batch")
Result = TypeVar("Result")


class JudgeError(ValueError):
    """A judge that can't be used; the message names the field and says what to change."""


@dataclass(frozen=True)
class Pretrained:
    """A Transformers model in evaluation mode on the device it runs on, and its tokenizer."""

    model: Any
    tokenizer: Any
    max_tokens: int
    """Tokens of a text, special ones included, that the model takes."""
    identity: str


def load_pretrained(field: str, name: str, architecture: Any, **options: Any) -> Pretrained:
    """Load ``architecture`` (an Auto class of Transformers) and the tokenizer, in float32.

    Args:
        field: the spec's field, for messages.
        name: a folder or a hub name.
        architecture: the Auto class.
        options: for the tokenizer.

    Raises:
        JudgeError: there is no such model, or it can't be loaded.
    """
    place = _locate(field, name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, **options)
        model = architecture.from_pretrained(place, dtype=torch.float32)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise JudgeError(
            f"{field} = {name!r} can't be loaded ({_first_line(error)}); name a folder or hub model of the right kind, "
            f"or {EMBEDDED}"
        ) from error
    model.eval()
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    return Pretrained(model, tokenizer, _max_tokens(tokenizer, model.config), identity_of(name, model.config))


def identity_of(name: str, config: Any = None) -> str:
    """What identifies a model's weights: their SHA-256 in a folder, the revision of a hub model, else the name."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        digest = hashlib.sha256()
        for file in sorted(file for pattern in _WEIGHTS for file in folder.glob(pattern)):
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        return f"sha256:{digest.hexdigest()}"
    revision = getattr(config, "_commit_hash", None)
    return f"revision:{revision}" if revision else name


def package_identity(package: str) -> str:
    """What identifies a judge that a package ships."""
    return f"{package}=={version(package)}"


def length_batches(lengths: Sequence[int], max_tokens_in_batch: int) -> Iterator[list[int]]:
    """Row numbers of similar length, longest first, so that rows × longest stays within the bound; at least one row."""
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    start = 0
    while start < len(order):
        size = max(1, max_tokens_in_batch // max(1, lengths[order[start]]))
        yield order[start : start + size]
        start += size


def map_batches(function: Callable[[Batch], Result], batches: Iterable[Batch]) -> list[Result]:
    """``function`` of each batch, in order, on as many Python threads as torch has, each with one torch thread.

    Torch's own threads wait for one another in every operation: on two cores with other work, judging took 42 s with
    two of them and 18 s with one. Batches wait for nothing. On a GPU, one after the other.
    """
    num_threads = torch.get_num_threads()
    if num_threads == 1 or torch.cuda.is_available():
        return [function(batch) for batch in batches]
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(num_threads) as pool:
            return list(pool.map(function, batches))
    finally:
        torch.set_num_threads(num_threads)


def _locate(field: str, name: str) -> str:
    """What ``from_pretrained`` is given; asks the hub only where that can succeed."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise JudgeError(f"{field} = {name!r} is no model: it has no config.json; name the folder of a model")
        return str(folder)
    if folder.exists() or looks_local(name):
        raise JudgeError(f"{field} = {name!r} is no folder; name an existing folder, a hub model, or {EMBEDDED}")
    try:
        is_cached = isinstance(try_to_load_from_cache(name, "config.json"), str)
    except HFValidationError as error:
        raise JudgeError(f"{field} = {name!r} is no hub name ({_first_line(error)}); correct it") from error
    if not is_cached and not is_hub_reachable():
        raise JudgeError(
            f"{field} = {name!r} is no folder here, and the hub can't be reached; connect to a network, or use "
            f"the judge that needs no hub: {EMBEDDED}"
        )
    return name


def _max_tokens(tokenizer: Any, config: Any) -> int:
    """The tokenizer's limit where it has one, within the model's positions.

    RoBERTa's numbering of positions begins after the pad id, so the last of its positions take no text.
    """
    positions = getattr(config, "max_position_embeddings", None) or MAX_TOKENS
    if getattr(config, "model_type", "") in {"roberta", "xlm-roberta", "camembert"}:
        positions -= int(config.pad_token_id) + 1
    return min(int(tokenizer.model_max_length), int(positions), MAX_TOKENS)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
