"""The model card: ``README.md`` in a model's folder, with the hub's metadata on top.

Everything in it comes from the model's record, which holds no paths any more, and from the scores of an evaluation;
what isn't known is said to be unknown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from configs.schema.kinds import Export
from jobs.model_record import ModelRecord, Origin, read_record

CARD = "README.md"
SCORES_FILE = "scores.json"
"""In the folder that an evaluation makes."""
METRICS = {
    "style": "style",
    "content_source": "content vs. source",
    "content_reference": "content vs. reference",
    "fluency": "fluency",
    "joint": "joint",
}
"""Metric of an evaluation → heading."""
UNKNOWN = "unknown"
_FIGURES = (
    "validation_loss",
    "validation_token_accuracy",
    "validation_ce",
    "validation_kd",
    "validation_teacher_agreement",
)
"""Of the training's end; the first two for every model."""
_HUB_DATASET = re.compile(r"[\w-][\w.-]*/[\w.-]+")

LIMITS = (
    "It rewrites single comments; it knows neither their thread nor who speaks to whom.",
    "It can change what a comment means, or turn it into its opposite. Compare with the source before anything is "
    "published in somebody's name.",
    "It can leave a toxic comment as it is. The share is in the results, as 1 minus style.",
    "Identity words and reclaimed slurs are where style judges err, and so does a model that is chosen by them.",
    "Inputs longer than in training ({max_length} tokens with the prefix) have to be cut; distox does it by sentence.",
    "Forbidden phrases are kept out while decoding, not by the weights: another decoder may write them.",
)


class CardError(ValueError):
    """Results that can't be put into a card; the message says what to change."""


@dataclass(frozen=True)
class Results:
    """The scores of an evaluation."""

    scores: Mapping[str, Any]
    system: str | None
    """The row that is the model."""

    @property
    def figures(self) -> dict[tuple[str, str], Mapping[str, Any]]:
        """(system, metric) → summary."""
        return {(item["system"], item["metric"]): item for item in self.scores["summaries"]}

    @property
    def systems(self) -> list[str]:
        """Those that were judged, in the order of the table."""
        return list(dict.fromkeys(item["system"] for item in self.scores["summaries"] if item["metric"] == "joint"))


def read_results(folder: Path, system: str | None) -> Results:
    """The scores in the artifact of an evaluation.

    Raises:
        CardError: there are none, or no such row in them.
    """
    file = folder.expanduser() / SCORES_FILE
    try:
        results = Results(json.loads(file.read_text(encoding="utf-8")), system)
        names = results.systems
        judges = [item["name"] for item in results.scores["judges"].values()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CardError(
            f"card.results = {folder}: no {SCORES_FILE} of an evaluation in it; give its artifact scores"
        ) from error
    if not names or not judges:
        raise CardError(f"card.results = {folder}: nothing was judged in it; give another evaluation")
    if system is not None and system not in names:
        raise CardError(f"card.system = {system!r}: not in the results; they have {', '.join(names)}")
    return results


def write_card(folder: Path, spec: Export, results: Results | None) -> None:
    """Write the card of the model in ``folder``, whose record is there already."""
    record = read_record(folder)
    assert record is not None, "the record is written before the card"
    title = spec.card.title or _title(record)
    size = sum(path.stat().st_size for path in folder.iterdir() if path.suffix in {".bin", ".safetensors"})
    sections = [
        f"# {title}",
        _summary(record, spec, size),
        "## How to use it\n\n" + _usage(spec, record),
        "## Training\n\n" + "\n".join(_training(record)),
        "## Results\n\n" + "\n".join(_results(record, results)),
        "## Limits\n\n" + "\n".join(f"- {item.format(max_length=record.max_length)}" for item in LIMITS),
        "## License\n\n" + _license(spec),
        "## Provenance\n\n" + "\n".join(_provenance(record)),
    ]
    metadata = _metadata(spec, record, results, title)
    ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n").save(folder / CARD)


def _metadata(spec: Export, record: ModelRecord, results: Results | None, title: str) -> ModelCardData:
    base = _hub_model(record.parent)
    data = record.data.name if record.data and _HUB_DATASET.fullmatch(record.data.name) else None
    return ModelCardData(
        language=spec.card.language,
        license=spec.card.license,
        library_name=spec.format,
        pipeline_tag="text-generation" if spec.format == "ctranslate2" else "text2text-generation",
        tags=["text-detoxification", "t5", *(["knowledge-distillation"] if record.kind == "distill" else [])],
        base_model=base,
        datasets=[data] if data else None,
        metrics=list(METRICS) if results else None,
        # Results in the metadata need a name.
        model_name=title if results and results.system else None,
        eval_results=list(_eval_results(record, results)) if results and results.system else None,
    )


def _eval_results(record: ModelRecord, results: Results) -> Iterator[EvalResult]:
    assert results.system is not None
    name = record.data.name if record.data else UNKNOWN
    for metric, heading in METRICS.items():
        if (item := results.figures.get((results.system, metric))) is not None:
            yield EvalResult(
                task_type="text2text-generation",
                task_name="Text detoxification",
                dataset_type=name,
                dataset_name=name,
                dataset_split="test",
                metric_type=metric,
                metric_name=heading,
                metric_value=round(float(item["value"]), 4),
                metric_args={"low": item["low"], "high": item["high"], "rows": item["count"]},
            )


def _title(record: ModelRecord) -> str:
    millions = "" if record.parameters is None else f" of {record.parameters / 1e6:.1f} million parameters"
    what = {"distill": "Distilled T5", "finetune": "Fine-tuned T5"}.get(record.kind, "T5")
    return f"{what}{millions} for text detoxification"


def _summary(record: ModelRecord, spec: Export, size: int) -> str:
    made = {
        "distill": "A T5 that was distilled from a larger one",
        "finetune": "A T5 that was fine-tuned on pairs of comments",
    }.get(record.kind, "A T5 whose training isn't recorded")
    return (
        f"{made}: it rewrites a toxic comment into a neutral one that says the same. Format {spec.format}, "
        f"{spec.quantization}, {size / 1e6:.1f} MB of weights. Every input begins with the prefix "
        f"`{record.prefix}` and has at most {record.max_length} tokens."
    )


def _training(record: ModelRecord) -> Iterator[str]:
    data = record.data
    if data is None:
        yield "- Data: unknown"
    else:
        yield (
            f"- Data: {data.name}; {data.num_train:,} sources to train on, {data.num_validation:,} for "
            f"validation, {data.num_test:,} held out for the test (split by distinct source, seed {data.split_seed}, "
            f"digest `{data.split_sha256[:16]}`)"
        )
    if record.teacher is not None and record.parent == record.teacher:
        yield "- Began with: the teacher's weights, of all its layers or of some"
    else:
        yield f"- Began with: {_origin(record.parent, 'random weights' if record.training else UNKNOWN)}"
    if record.teacher is not None:
        yield f"- Teacher: {_origin(record.teacher, UNKNOWN)}"
    if record.loss is not None:
        yield (
            f"- Loss: cross-entropy + {record.loss.get('kd_weight')} · T² · {record.loss.get('divergence')} between "
            f"teacher and student, T = {record.loss.get('temperature')}, mean over target tokens"
        )
    elif record.training is not None:
        yield "- Loss: cross-entropy, mean over target tokens"
    if record.training is not None:
        kept = (
            "learning_rate",
            "batch_size",
            "grad_accumulation",
            "epochs",
            "max_steps",
            "schedule",
            "precision",
            "seed",
        )
        said = {name: record.training.get(name) for name in kept if record.training.get(name) is not None}
        yield "- Settings: " + ", ".join(f"{name} {value}" for name, value in said.items())
    for name in _FIGURES if record.teacher is not None else _FIGURES[:2]:
        if (value := record.figures.get(name)) is not None:
            yield f"- {name.replace('_', ' ').capitalize()}: {value:.4f}"


def _results(record: ModelRecord, results: Results | None) -> Iterator[str]:
    if results is None:
        yield "Not evaluated on a test split; give `card.results` to the export of an evaluated model."
    else:
        yield from _table(results)
    gate = record.export and record.export.get("gate")
    if gate:
        difference, trained = gate["difference"], gate["trained"]["value"]
        judges = ", ".join(f"{role}: {name}" for role, name in gate["judges"].items())
        yield (
            f"\nGate of this export, on {gate['num_rows']} validation rows: joint {gate['exported']['value']:.4f} "
            f"against {trained:.4f} of the trained model in float32, difference {difference['value']:+.4f} "
            f"[{difference['low']:+.4f}, {difference['high']:+.4f}]; at most {gate['max_drop']:g} may be lost. "
            f"Judges: {judges}."
        )


def _table(results: Results) -> Iterator[str]:
    yield "| system | " + " | ".join(METRICS.values()) + " |"
    yield "| --- |" + " ---: |" * len(METRICS)
    for name in results.systems:
        cells = [_cell(results.figures.get((name, metric))) for metric in METRICS]
        shown = f"**{name}** (this model)" if name == results.system else name
        yield f"| {shown} | " + " | ".join(cells) + " |"
    judges = ", ".join(f"{role}: {item['name']}" for role, item in results.scores["judges"].items())
    yield f"\n{results.scores['num_rows']} test rows; means with 95 % bootstrap intervals. Judges: {judges}."
    yield (
        "Joint is the mean over rows of style × content × fluency. *copy* is the comment as it was, *delete* the "
        "comment without its toxic words, *reference* the rewrite in the data, where they are in the table."
    )
    if results.scores.get("gate_is_style_judge"):
        yield "The judge of style also chose the outputs: style is flattered."


def _cell(item: Mapping[str, Any] | None) -> str:
    if item is None:
        return ""
    if item.get("low") is None or item.get("high") is None:
        return f"{item['value']:.3f}"
    return f"{item['value']:.3f} [{item['low']:.3f}, {item['high']:.3f}]"


def _usage(spec: Export, record: ModelRecord) -> str:
    decoding = spec.decoding
    fast_options = {
        "beam_size": decoding.num_beams,
        "patience": decoding.patience,
        "no_repeat_ngram_size": decoding.no_repeat_ngram_size,
        "length_penalty": decoding.length_penalty,
        "max_decoding_length": decoding.max_new_tokens,
    }
    options = f"no_repeat_ngram_size={decoding.no_repeat_ngram_size}, length_penalty={decoding.length_penalty}"
    fast = f"""With CTranslate2{"" if spec.format == "ctranslate2" else " (export this folder with distox first)"}:

```python
import ctranslate2, tokenizers

tokenizer = tokenizers.Tokenizer.from_file("model/tokenizer.json")
translator = ctranslate2.Translator("model")
tokens = tokenizer.encode({record.prefix!r} + comment).tokens
options = {fast_options!r}
result = translator.translate_batch([tokens], return_end_token=True, **options)[0]
print(tokenizer.decode([tokenizer.token_to_id(token) for token in result.hypotheses[0]]))
```"""
    slow = f"""With Transformers{"" if spec.format == "transformers" else " (the export with `format: transformers`)"}:

```python
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

tokenizer, model = AutoTokenizer.from_pretrained("model"), AutoModelForSeq2SeqLM.from_pretrained("model")
inputs = tokenizer({record.prefix!r} + comment, return_tensors="pt")
outputs = model.generate(**inputs, num_beams={decoding.num_beams}, {options}, max_new_tokens={decoding.max_new_tokens})
print(tokenizer.decode(outputs[0], skip_special_tokens=True))
```"""
    whole = """With distox, which cuts long comments, keeps forbidden phrases out and knows the prefix (`distox.json`):

```yaml
kind: detoxify
model: {name: ./model}
input: {path: ./comments.csv, text_column: comment}
```"""
    return "\n\n".join([whole, *((fast, slow) if spec.format == "ctranslate2" else (slow, fast))])


def _license(spec: Export) -> str:
    if spec.card.license == UNKNOWN:
        return "Not stated. The licenses of the base model, the teacher and the data may bind users of this model."
    return f"{spec.card.license}, as stated by whoever exported the model; those of base model and data stay in force."


def _provenance(record: ModelRecord) -> Iterator[str]:
    yield f"- Weights: SHA-256 `{record.weights_sha256}`"
    if record.exported_from is not None:
        yield f"- Exported from: {_origin(record.exported_from, UNKNOWN)}"
    yield "- Made with: " + ", ".join(f"{name} {number}" for name, number in record.versions.items())
    yield "- Everything else that is known is in `distox.json`."


def _origin(origin: Origin | None, otherwise: str) -> str:
    if origin is None:
        return otherwise
    size = "" if origin.parameters is None else f"{origin.parameters:,} parameters"
    proof = (
        f"SHA-256 `{origin.sha256[:16]}`"
        if origin.sha256
        else f"revision `{origin.revision}`"
        if origin.revision
        else ""
    )
    more = ", ".join(item for item in (size, proof) if item)
    return f"{_hub_model(origin) or 'a model trained before'}{f' ({more})' if more else ''}"


def _hub_model(origin: Origin | None) -> str | None:
    """The name of a model of the hub; None for a folder, whose weights have a digest instead."""
    return None if origin is None or origin.sha256 is not None else origin.name
