"""The ``export`` job: a trained T5 becomes a CTranslate2 model that the inference engine loads.

The artifact ``model`` is one folder: weights in the asked precision, the tokenizer's files and a record of what was
exported from what. It was loaded and compared with its source before the job ends.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from configs.schema.kinds import Export
from jobs.context import JobContext, JobResult, JobStopped, Summary
from jobs.conversion import ConversionError, convert, is_exported
from jobs.model_record import ModelRecord, Origin, origin_of, record_of, versions, write_record
from jobs.models import count_parameters, load_model

logger = logging.getLogger(__name__)

ARTIFACT = "model"


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
    origin = origin_of(spec.model, loaded)
    difference = convert(loaded, folder, spec.quantization)
    write_record(folder, _record(spec, origin, parameters, difference))
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


def _record(spec: Export, origin: Origin | None, parameters: int, difference: float) -> ModelRecord:
    """What the trained model remembers, and how this export was made of it."""
    trained = record_of(spec.model) or ModelRecord(kind="export")
    return replace(
        trained,
        parameters=parameters,
        parent=origin,
        export={"format": "ctranslate2", "quantization": spec.quantization, "score_difference": difference},
        versions=versions(),
    )
