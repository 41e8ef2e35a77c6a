"""The ``export`` job: a trained T5 becomes a CTranslate2 model that the inference engine loads.

The artifact ``model`` is one folder: weights in the asked precision, the tokenizer's files and a record of what was
exported from what. It was loaded and compared with its source before the job ends.
"""

from __future__ import annotations

import json
import logging
from importlib.metadata import version
from pathlib import Path
from typing import Any

from configs.schema.kinds import Export
from jobs.context import JobContext, JobResult, JobStopped, Summary
from jobs.conversion import RECORD, WEIGHTS, ConversionError, convert, is_exported, sha256_of
from jobs.models import count_parameters, load_model

logger = logging.getLogger(__name__)

ARTIFACT = "model"
RECORD_VERSION = 1
_PACKAGES = ("ctranslate2", "transformers", "tokenizers", "torch")


def run(spec: Export, context: JobContext) -> JobResult:
    """Convert ``spec.model`` into ``context.output / "model"``.

    Raises:
        ModelError: the path is no model.
        ConversionError: CTranslate2 can't run it, or the model is exported already.
        JobStopped: asked to stop before the conversion began.
    """
    if spec.model.name is not None and is_exported(Path(spec.model.name).expanduser()):
        raise ConversionError(f"model {spec.model.name!r} is exported already; name the trained model it came from")
    loaded = load_model(spec.model)
    if context.should_stop():
        raise JobStopped
    folder = context.output / ARTIFACT
    parameters = count_parameters(loaded.model)
    difference = convert(loaded, folder, spec.quantization)
    record = _record(spec, folder, parameters, difference)
    (folder / RECORD).write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    size = sum(path.stat().st_size for path in folder.iterdir())
    logger.info("exported %d parameters as %s: %d bytes", parameters, spec.quantization, size)
    return JobResult(
        {ARTIFACT: ARTIFACT},
        (
            Summary("parameters", parameters),
            Summary("bytes_on_disk", size),
            Summary("score_difference", difference),
        ),
    )


def _record(spec: Export, folder: Path, parameters: int, difference: float) -> dict[str, Any]:
    return {
        "version": RECORD_VERSION,
        "quantization": spec.quantization,
        "source": spec.model.name,
        "source_sha256": _source_digest(spec.model.name),
        "model_sha256": sha256_of([folder / WEIGHTS]),
        "parameters": parameters,
        "score_difference": difference,
        "versions": {package: version(package) for package in _PACKAGES},
    }


def _source_digest(name: str | None) -> str | None:
    """SHA-256 of the source folder's weight files; None for a hub name or a model made on the spot."""
    if name is None or not (folder := Path(name).expanduser()).is_dir():
        return None
    weights = [path for path in folder.iterdir() if path.suffix in {".safetensors", ".bin"}]
    return sha256_of(weights)
