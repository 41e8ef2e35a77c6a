"""The systems of an evaluation: where each one's outputs come from, and how large a model among them is.

A model's outputs are those that ``detoxify`` would write: the model's own prefix, segments, blocklist. Knows no judge.
"""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache

from configs.schema.inference import RowInput, System
from configs.schema.kinds import Detoxify, Evaluate
from configs.schema.models import ModelSource
from jobs.context import JobStopped
from jobs.conversion import WEIGHTS, is_exported
from jobs.data import DataError, Pair, PairSplits
from jobs.deletion import DeleteControl
from jobs.detoxify import Detoxifier
from jobs.generation import EngineError, check_generator
from jobs.model_record import InputForm, own_input_form, read_record
from jobs.models import ModelError
from jobs.tables import is_file, read_rows, text_of

BATCHES_IN_CALL = 8
"""The engine sorts the rows of one call by length, so it is given some batches at once."""
SYSTEM_FIELD = "systems.{name}.rows"


@dataclass(frozen=True)
class Outputs:
    """What a system wrote for the rows, and how large it is (None for what is no model, or can't be told)."""

    texts: tuple[str, ...]
    """One for each row; empty where there is no output."""
    parameters: int | None = None
    bytes_on_disk: int | None = None
    """Of the weights."""
    statuses: Mapping[str, int] = field(default_factory=dict)
    """Rows by the status that ``detoxify`` would give them."""


def check_systems(spec: Evaluate, test: Sequence[Pair]) -> None:
    """See that every model and every file of rows can be had, before the first is decoded or judged.

    Raises:
        ValueError: one can't; the message names the system.
    """
    for name, system in spec.systems.items():
        if system.rows is not None:
            read_outputs(Path(system.rows), test, field=SYSTEM_FIELD.format(name=name))
        elif system.model is not None:
            try:
                check_generator(system.model, spec.engine)
            except (ModelError, EngineError) as error:
                raise type(error)(f"systems.{name}: {error}") from error


def collect(
    spec: Evaluate,
    splits: PairSplits,
    test: Sequence[Pair],
    *,
    num_threads: int,
    should_stop: Callable[[], bool],
    done: Callable[[int], None],
) -> dict[str, Outputs]:
    """The outputs of every system, in the order of the spec; those that cost nothing are had first.

    Args:
        spec: names the systems and how models decode.
        splits: the delete control is fitted on them, without test.
        test: the rows that are judged.
        num_threads: CPU threads for models.
        should_stop: is asked between the calls of a model.
        done: is told the number of systems that are through.

    Raises:
        ValueError: a model or a file of rows can't be used, or has other rows.
        JobStopped: ``should_stop`` said so.
    """
    outputs: dict[str, Outputs] = {}
    for name in sorted(spec.systems, key=lambda name: spec.systems[name].model is not None):
        system = spec.systems[name]
        if system.model is not None:
            outputs[name] = _generate(spec, system.model, test, num_threads, should_stop)
        elif system.rows is not None:
            outputs[name] = Outputs(read_outputs(Path(system.rows), test, field=SYSTEM_FIELD.format(name=name)))
        else:
            outputs[name] = Outputs(_control(system, splits, test))
        done(len(outputs))
    return {name: outputs[name] for name in spec.systems}


def read_outputs(file: Path, test: Sequence[Pair], *, field: str) -> tuple[str, ...]:
    """The column ``output`` of a CSV, TSV, JSONL or Parquet file whose ``source`` is the test split, row by row.

    More rows than ``test`` has are ignored, so that a limited evaluation takes the same file.

    Raises:
        DataError: the file can't be read, lacks a column, or its sources are others.
    """
    if not is_file(file):
        raise DataError(f"{field} = {file}: not a file; correct the path")
    texts: list[str] = []
    for row in islice(read_rows(str(file), field=field), len(test)):
        for column in ("source", "output"):
            if column not in row:
                raise DataError(f"{field} = {file}: no column {column!r}; it needs source and output")
        if text_of(row["source"]) != test[len(texts)].source:
            raise DataError(
                f"{field} = {file}: row {len(texts)} has another source than the test split has there; write the "
                "rows in the order of the test split"
            )
        texts.append(str(row["output"] or ""))
    if len(texts) < len(test):
        raise DataError(f"{field} = {file}: {len(texts)} rows for {len(test)} test rows; give all, or lower limit")
    return tuple(texts)


def rewrite_all(
    detoxifier: Detoxifier, sources: Sequence[str], *, batch_size: int, should_stop: Callable[[], bool]
) -> Outputs:
    """The outputs, and what became of the rows; a quarantined one has an empty output.

    Raises:
        JobStopped: ``should_stop`` said so.
    """
    size = batch_size * BATCHES_IN_CALL
    statuses: Counter[str] = Counter()
    texts: list[str] = []
    for first in range(0, len(sources), size):
        if should_stop():
            raise JobStopped
        for rewrite in detoxifier.rewrite(sources[first : first + size]):
            statuses[rewrite.status.value] += 1
            texts.append(rewrite.text or "")
    return Outputs(tuple(texts), statuses=dict(statuses))


def detoxify_spec(spec: Evaluate, model: ModelSource) -> Detoxify:
    """How ``model`` rewrites in this evaluation; its input is none that is read."""
    form = own_input_form(model, InputForm(spec.dataset.prefix, spec.dataset.max_length))
    return Detoxify(
        model=model,
        input=RowInput(path="unused"),
        prefix=form.prefix,
        max_length=form.max_length,
        decoding=spec.decoding,
        safety=spec.safety,
        engine=spec.engine,
    )


def cost_of(model: ModelSource) -> tuple[int | None, int | None]:
    """Parameters and bytes of the weights on disk; None where they can't be told (a model made on the spot)."""
    weights = _weights(model.name) if model.name is not None else []
    if not weights:
        return None, None
    size = sum(file.stat().st_size for file in weights)
    if weights[0].name == WEIGHTS:
        record = read_record(weights[0].parent)
        return (None if record is None else record.parameters), size
    if any(file.suffix != ".safetensors" for file in weights):
        return None, size
    return sum(_num_parameters(file) for file in weights), size


def _control(system: System, splits: PairSplits, test: Sequence[Pair]) -> tuple[str, ...]:
    if system.control == "copy":
        return tuple(pair.source for pair in test)
    if system.control == "reference":
        return tuple(pair.targets[0] for pair in test)
    control = DeleteControl.fit(splits.train, splits.validation)
    return tuple(control.delete(pair.source) for pair in test)


def _generate(
    spec: Evaluate, model: ModelSource, test: Sequence[Pair], num_threads: int, should_stop: Callable[[], bool]
) -> Outputs:
    detoxifier = Detoxifier.load(detoxify_spec(spec, model), num_threads=num_threads)
    sources = [pair.source for pair in test]
    written = rewrite_all(detoxifier, sources, batch_size=spec.engine.batch_size, should_stop=should_stop)
    parameters, size = cost_of(model)
    return Outputs(written.texts, parameters, size, written.statuses)


def _weights(name: str) -> list[Path]:
    """The weights of a folder, or of a hub model that was loaded before."""
    folder = Path(name).expanduser()
    if not folder.is_dir():
        cached = [try_to_load_from_cache(name, file) for file in ("model.safetensors", "pytorch_model.bin")]
        return [Path(file) for file in cached if isinstance(file, str)][:1]
    if is_exported(folder):
        return [folder / WEIGHTS]
    return sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))


def _num_parameters(file: Path) -> int:
    """Elements of all tensors, from the header: an 8-byte length, then JSON. A tied weight is stored once."""
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header: dict[str, Any] = json.loads(stream.read(length))
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
