"""What a model remembers of its making: ``distox.json`` in its folder, beside the weights.

Whoever uses the model later needs no spec of its training: the prefix and the longest input come from here, and a use
that contradicts them is told in the log. Reading a record loads no weights; knows no engine.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError

from configs.schema.data import RECIPE_MAX_LENGTH, RECIPE_PREFIX, Dataset
from configs.schema.models import ModelSource, StudentSource
from configs.schema.training import DistillationLoss, Training
from jobs.digests import weights_sha256
from jobs.hub import is_hub_reachable
from jobs.models import LoadedModel, count_parameters
from jobs.pairs import PREPARED_FILE, SPLITS, PairSplits

RECORD = "distox.json"
"""The file in the model's folder."""
VERSION = 1
PACKAGES = ("torch", "transformers", "tokenizers", "ctranslate2")
"""Whose versions decide what comes out."""

_RUN_FOLDER = re.compile(r"r-[0-9a-z]+/a\d+/[^/]+$")

logger = logging.getLogger(__name__)


class RecordError(ValueError):
    """A record that is there and can't be used; the message says what to do."""


@dataclass(frozen=True)
class Origin:
    """A model that another one was made of."""

    name: str
    """Hub name, or folder at that time."""
    sha256: str | None = None
    """Of its weights, in a folder."""
    revision: str | None = None
    """Of a hub model."""
    parameters: int | None = None


@dataclass(frozen=True)
class Data:
    """What a model was trained on."""

    name: str
    """Hub name or file; of a prepared folder, what it was prepared from."""
    split_seed: int
    split_sha256: str
    """Over all pairs and the split that each is in."""
    test_sha256: str
    """Over the test split: models with the same digest can be compared on it."""
    num_train: int
    num_validation: int
    num_test: int
    extra: Mapping[str, int] = field(default_factory=dict)
    """What became of the rows of ``dataset.extra``; empty where there were none."""


@dataclass(frozen=True)
class ModelRecord:
    """Everything that later users of a model are told; what isn't known is None."""

    kind: str
    """``finetune``, ``distill``, or ``export`` for a model that was trained elsewhere."""
    prefix: str | None = None
    max_length: int | None = None
    """Tokens of the longest input in training."""
    parameters: int | None = None
    weights_sha256: str | None = None
    data: Data | None = None
    parent: Origin | None = None
    """What the training began with; None for random weights."""
    exported_from: Origin | None = None
    """The trained model that an export was made of."""
    teacher: Origin | None = None
    loss: Mapping[str, Any] | None = None
    """Settings of the distillation loss."""
    training: Mapping[str, Any] | None = None
    """Settings of the training."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """Of the training's end."""
    export: Mapping[str, Any] | None = None
    """Format, quantization, and how close the export is to the trained model."""
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class InputForm:
    """How text is given to a model."""

    prefix: str
    max_length: int


RECIPE = InputForm(RECIPE_PREFIX, RECIPE_MAX_LENGTH)
"""For a model that remembers nothing."""


def write_record(folder: Path, record: ModelRecord) -> None:
    """Write ``record`` into the folder of a model, with the digest of the weights that lie there."""
    data = {**asdict(record), "version": VERSION, "weights_sha256": weights_sha256(folder)}
    text = json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False)
    (folder / RECORD).write_text(text + "\n", encoding="utf-8")


def read_record(folder: Path) -> ModelRecord | None:
    """The record of a model's folder; None where another program made the model.

    Raises:
        RecordError: it is there and can't be read.
    """
    file = folder / RECORD
    return _parse(file) if file.is_file() else None


def record_of(model: ModelSource) -> ModelRecord | None:
    """The record of a folder or hub model; None where there is none, and for a model made on the spot.

    Raises:
        RecordError: it is there and can't be read.
    """
    if model.name is None:
        return None
    folder = Path(model.name).expanduser()
    if folder.exists() or folder.is_absolute():
        return read_record(folder)
    file = _from_hub(model.name)
    return None if file is None else _parse(file)


def origin_of(source: ModelSource, loaded: LoadedModel) -> Origin | None:
    """Who a model is, for the record of one that is made of it; None for one made on the spot."""
    if source.name is None:
        return None
    revision = getattr(loaded.model.config, "_commit_hash", None)
    digest = weights_sha256(Path(source.name).expanduser())
    return Origin(source.name, digest, revision, count_parameters(loaded.model))


def without_paths(record: ModelRecord) -> ModelRecord:
    """The record as others may read it: folders and files of this machine by their last name, or by run and attempt."""

    def public(origin: Origin | None) -> Origin | None:
        return None if origin is None else replace(origin, name=_public(origin.name))

    return replace(
        record,
        data=None if record.data is None else replace(record.data, name=_public(record.data.name)),
        parent=public(record.parent),
        teacher=public(record.teacher),
        exported_from=public(record.exported_from),
    )


def training_record(
    dataset: Dataset,
    splits: PairSplits,
    training: Training,
    *,
    source: ModelSource,
    student: LoadedModel,
    teacher_source: ModelSource | None,
    teacher: LoadedModel | None,
    loss: DistillationLoss | None,
) -> ModelRecord:
    """What the model of a training will remember, but for the figures; warns of a teacher that knows another prefix."""
    taught = None
    if teacher_source is not None and teacher is not None:
        taught = origin_of(teacher_source, teacher)
        warn_of_other_input(
            teacher_source.name, record_of(teacher_source), prefix=dataset.prefix, max_length=dataset.max_length
        )
    is_copy = isinstance(source, StudentSource) and source.from_teacher is not None
    return ModelRecord(
        kind="finetune" if teacher is None else "distill",
        prefix=dataset.prefix,
        max_length=dataset.max_length,
        parameters=count_parameters(student.model),
        data=data_of(dataset, splits),
        parent=taught if is_copy else origin_of(source, student),
        teacher=taught,
        loss=None if loss is None else loss.model_dump(mode="json"),
        training=training.model_dump(mode="json"),
        versions=versions(),
    )


def data_of(dataset: Dataset, splits: PairSplits) -> Data:
    """What a record says of the data."""
    return Data(
        name=_origin_name(dataset.name),
        split_seed=dataset.split.seed,
        split_sha256=split_sha256(splits),
        test_sha256=split_sha256(PairSplits((), (), splits.test)),
        num_train=len(splits.train),
        num_validation=len(splits.validation),
        num_test=len(splits.test),
        extra=dict(splits.extra),
    )


def split_sha256(splits: PairSplits) -> str:
    """A digest of all pairs and of the split that each is in."""
    digest = hashlib.sha256()
    for name in SPLITS:
        for pair in getattr(splits, name):
            digest.update(json.dumps([name, pair.source, *pair.targets]).encode() + b"\n")
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """The versions of ``PACKAGES``."""
    return {package: version(package) for package in PACKAGES}


def input_form(model: ModelSource, *, prefix: str | None = None, max_length: int | None = None) -> InputForm:
    """How text is given to ``model``: as asked, else as it was trained, else as in the recipe.

    What is asked and contradicts the training is taken, with a warning: with another prefix, or with inputs longer than
    any in training, a model does worse and says nothing.

    Raises:
        RecordError: the model's record can't be read.
    """
    record = record_of(model)
    warn_of_other_input(model.name, record, prefix=prefix, max_length=max_length)
    own = _form(record, RECIPE)
    return InputForm(
        own.prefix if prefix is None else prefix,
        own.max_length if max_length is None else max_length,
    )


def own_input_form(model: ModelSource, otherwise: InputForm) -> InputForm:
    """How text is given to ``model``: as it was trained, whatever a dataset says; ``otherwise`` where it has no record.

    Raises:
        RecordError: the model's record can't be read.
    """
    own = _form(record_of(model), otherwise)
    if own.prefix != otherwise.prefix:
        logger.warning("model %s is given its own prefix %r, not %r", model.name, own.prefix, otherwise.prefix)
    return own


def warn_of_other_input(
    name: str | None, record: ModelRecord | None, *, prefix: str | None, max_length: int | None
) -> None:
    """Log where the input that was asked for isn't what the model was trained with; None was not asked for."""
    if record is None:
        return
    if prefix is not None and record.prefix is not None and prefix != record.prefix:
        logger.warning(
            "model %s was trained with prefix %r and is given %r: it may do worse", name, record.prefix, prefix
        )
    if max_length is not None and record.max_length is not None and max_length > record.max_length:
        logger.warning(
            "model %s was trained on inputs of at most %d tokens and is given up to %d: it may do worse",
            name,
            record.max_length,
            max_length,
        )


def _form(record: ModelRecord | None, otherwise: InputForm) -> InputForm:
    if record is None:
        return otherwise
    return InputForm(
        otherwise.prefix if record.prefix is None else record.prefix,
        otherwise.max_length if record.max_length is None else record.max_length,
    )


def _parse(file: Path) -> ModelRecord:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        if data["version"] != VERSION:
            raise RecordError(
                f"{file}: a record of version {data['version']}, and this distox knows {VERSION}; train or export the "
                "model again, or use the distox that made it"
            )
        parts = {"data": Data, "parent": Origin, "teacher": Origin, "exported_from": Origin}
        known = {item.name for item in fields(ModelRecord)} & set(data)
        values = {name: data[name] for name in known}
        record = ModelRecord(
            **{name: parts[name](**value) if name in parts and value else value for name, value in values.items()}
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(f"{file} can't be read; train or export the model again") from error
    if not isinstance(record.prefix, str | None) or not isinstance(record.max_length, int | None):
        raise RecordError(f"{file} holds a prefix or max_length that is none; train or export the model again")
    return record


def _from_hub(name: str) -> Path | None:
    """The record in a hub repository; None where there is none or nobody can say."""
    try:
        cached = try_to_load_from_cache(name, RECORD)
        if isinstance(cached, str):
            return Path(cached)
        # Anything but None says that the repository is known to have no such file.
        if cached is not None or not is_hub_reachable():
            return None
        return Path(hf_hub_download(name, RECORD))
    except (EntryNotFoundError, HfHubHTTPError, HFValidationError):
        return None


def _public(name: str) -> str:
    if not Path(name).expanduser().is_absolute():
        return name
    run = _RUN_FOLDER.search(name)
    return run[0] if run else Path(name).name


def _origin_name(name: str) -> str:
    try:
        about = json.loads((Path(name) / PREPARED_FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return name
    return str(about.get("origin") or name) if isinstance(about, dict) else name
