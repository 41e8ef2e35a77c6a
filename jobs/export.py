"""The ``export`` job: a trained T5 becomes what is published.

The artifact ``model`` is one folder: weights in the asked format and precision, the tokenizer, the record of its making
and a model card; ``bundle`` the same with a script, for devices. It was loaded, compared with the trained model and,
where the spec says so, judged before anything stands under these names: a refused export leaves nothing.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from configs.schema.inference import Decoding
from configs.schema.kinds import Export
from jobs.bundle.build import ZIP_SUFFIX, make_bundle, zip_bundle
from jobs.context import JobContext, JobResult, JobStopped, Summary
from jobs.conversion import ConversionError, convert, is_exported
from jobs.export_gate import GateResult, pass_gate
from jobs.model_card import read_results, write_card
from jobs.model_record import (
    InputForm,
    ModelRecord,
    Origin,
    input_form,
    origin_of,
    record_of,
    versions,
    without_paths,
    write_record,
)
from jobs.models import LoadedModel, count_parameters, load_model

logger = logging.getLogger(__name__)

ARTIFACT = "model"
BUNDLE = "bundle"


def run(spec: Export, context: JobContext) -> JobResult:
    """Export ``spec.model`` into ``context.output / "model"``.

    Raises:
        ModelError: the path is no model.
        ConversionError: CTranslate2 can't run it, or the model is exported already.
        GateRefused: it writes worse than the trained model.
        BundleError: the bundle doesn't run by itself.
        CardError, RecordError: results or a record that can't be read.
        JobStopped: asked to stop before the conversion began, or in the gate.
    """
    if spec.model.name is not None and is_exported(Path(spec.model.name).expanduser()):
        raise ConversionError(f"model {spec.model.name!r} is exported already; name the trained model it came from")
    results = None if spec.card.results is None else read_results(Path(spec.card.results), spec.card.system)
    form = input_form(spec.model, prefix=spec.prefix, max_length=spec.max_length)
    loaded = load_model(spec.model)
    if context.should_stop():
        raise JobStopped
    parameters = count_parameters(loaded.model)
    origin = origin_of(spec.model, loaded)
    with tempfile.TemporaryDirectory(dir=context.output, prefix=".export-") as temporary:
        folder = Path(temporary) / ARTIFACT
        difference = _write_weights(spec, loaded, folder)
        del loaded
        gate = None if spec.gate is None else pass_gate(spec, spec.gate, folder, form, context)
        record = _record(spec, form, origin, parameters, difference, gate)
        write_record(folder, record)
        write_card(folder, spec, results)
        artifacts, figures = _publish(spec, form, folder, context)
    size = sum(path.stat().st_size for path in (context.output / ARTIFACT).iterdir())
    logger.info("exported %d parameters as %s %s: %d bytes", parameters, spec.format, spec.quantization, size)
    figures = {"parameters": parameters, "bytes_on_disk": size, "score_difference": difference, **figures}
    summaries = [Summary(name, value) for name, value in figures.items()]
    return JobResult(artifacts, (*summaries, *(() if gate is None else gate.summaries)))


def _write_weights(spec: Export, loaded: LoadedModel, folder: Path) -> float:
    """Weights and tokenizer; how far the scores are from the trained model's."""
    if spec.format == "ctranslate2":
        return convert(loaded, folder, spec.quantization)
    model: Any = loaded.model
    model.to({"float32": torch.float32, "bfloat16": torch.bfloat16}[spec.quantization])
    loaded.model.generation_config = _generation_config(loaded, spec.decoding)
    loaded.model.config.dtype = spec.quantization
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return 0.0


def _generation_config(loaded: LoadedModel, decoding: Decoding) -> GenerationConfig:
    """So that ``generate()`` without options decodes as distox does, but for the blocklist."""
    has_beam = decoding.num_beams > 1
    return GenerationConfig(  # type: ignore[no-untyped-call]
        num_beams=decoding.num_beams,
        length_penalty=decoding.length_penalty if has_beam else None,
        early_stopping=(decoding.patience == 1) if has_beam else None,
        no_repeat_ngram_size=decoding.no_repeat_ngram_size or None,
        max_new_tokens=decoding.max_new_tokens,
        pad_token_id=loaded.tokenizer.pad_token_id,
        eos_token_id=loaded.tokenizer.eos_token_id,
        decoder_start_token_id=loaded.model.config.decoder_start_token_id,
    )


def _record(
    spec: Export,
    form: InputForm,
    origin: Origin | None,
    parameters: int,
    difference: float,
    gate: GateResult | None,
) -> ModelRecord:
    """What the trained model remembers, and how this export was made of it."""
    trained = record_of(spec.model) or ModelRecord(kind="export")
    how: dict[str, Any] = {
        "format": spec.format,
        "quantization": spec.quantization,
        "score_difference": difference,
        "decoding": spec.decoding.model_dump(mode="json"),
        "blocklist": list(spec.safety.blocklist),
        "gate": None if gate is None else gate.as_dict(),
    }
    own = replace(
        trained,
        prefix=form.prefix,
        max_length=form.max_length,
        parameters=parameters,
        exported_from=origin,
        export=how,
        versions=versions(),
    )
    return without_paths(own)


def _publish(
    spec: Export, form: InputForm, folder: Path, context: JobContext
) -> tuple[Mapping[str, str], dict[str, float]]:
    """Make the bundle when asked, then give everything its name; the artifacts and the bundle's figures."""
    figures: dict[str, float] = {}
    artifacts = {ARTIFACT: ARTIFACT}
    if spec.bundle:
        made = make_bundle(spec, form, folder, folder.parent / BUNDLE, num_threads=context.num_threads)
        archive = zip_bundle(made.folder)
        figures = {
            "bundle_bytes": made.num_bytes,
            "bundle_zip_bytes": archive.stat().st_size,
            "bundle_peak_bytes": made.peak_bytes,
        }
        artifacts |= {BUNDLE: BUNDLE, f"{BUNDLE}_zip": archive.name}
        made.folder.rename(context.output / BUNDLE)
        archive.rename(context.output / f"{BUNDLE}{ZIP_SUFFIX}")
    folder.rename(context.output / ARTIFACT)
    return artifacts, figures
