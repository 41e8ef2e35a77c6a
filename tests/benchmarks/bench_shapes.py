"""Inference of T5-small against T5-base, int8 and float32, CPU: ``make bench-shapes``, about four minutes.

Random weights of the published shapes (embedding 32,128), a tokenizer of 8,000 pieces trained on the rows, sources of
ParaDetox, the recipe's decoding. Random weights end their outputs anywhere, so every output is made as long as a target
(14 tokens, the end token included): the end token is forbidden before and wins then. Each model decodes in a process of
its own; the models of an engine take turns. CTranslate2 runs int8 and float32; Transformers float32 is how the recipe
ran its models, one row at a time.

The last line is JSON. ``speedup_*`` is rows per second in batches of 32, student over teacher; ``latency_speedup_*``
the same for rows one by one; ``memory_ratio_*`` is what the student added to its process over what the teacher did;
``disk_ratio_*`` is that of the weights; ``parameter_ratio`` is what the recipe's "75 % less memory" counts.
``*_student_int8_teacher_recipe`` compares what distox deploys with the teacher as the recipe ran it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from configs.schema.inference import Decoding, Engine, Safety
from configs.schema.kinds import Detoxify
from configs.schema.models import ModelSource, Shape
from jobs.conversion import WEIGHTS, convert
from jobs.data import load_pairs
from jobs.generation import load_generator
from jobs.models import LoadedModel, count_parameters, load_tokenizer, make_model
from jobs.speed import ModelSpeed, measure_speed
from jobs.tokenization import train_tokenizer
from tests.benchmarks.bench_train import BASE, MAX_LENGTH, PREFIX, SMALL, _dataset

NEW_TOKENS = 14
"""Of every output: the mean target has 12.5 and an end token."""
PULL = 20.0
"""Of one dimension, large in all embeddings: three times as large it makes the end token win, negative none."""
DECODING = Decoding(min_new_tokens=NEW_TOKENS - 1)
SHAPES: dict[str, Shape] = {"teacher": BASE, "student": SMALL}
ENGINES = {"int8": ("ctranslate2", 32, 3), "fp32": ("ctranslate2", 32, 3), "recipe": ("transformers", 8, 2)}
"""Way to run a model → engine, rows, rounds; Transformers takes over a second a row."""
QUANTIZATION = {"int8": "int8", "fp32": "float32"}


def make_models(folder: Path, texts: list[str]) -> dict[str, Any]:
    """Write each model in each way it is run; the ratio of parameters."""
    train_tokenizer(texts, vocab_size=8000, folder=folder / "tokenizer")
    tokenizer = load_tokenizer(str(folder / "tokenizer"))
    parameters = {}
    for name, shape in SHAPES.items():
        for way in ENGINES:
            torch.manual_seed(0)
            model = make_model(shape, tokenizer)
            end_when_allowed(model, len(tokenizer))
            parameters[name] = count_parameters(model)
            place = folder / f"{name}-{way}"
            if way in QUANTIZATION:
                convert(LoadedModel(model, tokenizer), place, QUANTIZATION[way])
            else:
                model.save_pretrained(place)
                tokenizer.save_pretrained(place)
    return {"parameter_ratio": parameters["student"] / parameters["teacher"]}


def end_when_allowed(model: Any, num_known: int) -> None:
    """Let the end token win wherever it isn't forbidden, and no token win that the tokenizer doesn't know."""
    with torch.no_grad():
        weights = model.get_input_embeddings().weight
        weights[:, 0] = PULL
        weights[num_known:, 0] = -PULL
        weights[model.config.eos_token_id, 0] = 3 * PULL


def check_length(folder: Path, sources: list[str], num_threads: int) -> None:
    """See that a model's outputs are about as long as was asked; tokenized again a text may have other pieces."""
    generator = load_generator(
        ModelSource(name=str(folder)),
        prefix=PREFIX,
        max_length=MAX_LENGTH,
        decoding=DECODING,
        safety=Safety(),
        engine=Engine(),
        num_threads=num_threads,
    )
    tokenizer = load_tokenizer(str(folder))
    lengths = [len(tokenizer(text).input_ids) for text in generator.generate(sources)]
    assert all(abs(length - NEW_TOKENS) <= 8 for length in lengths), f"outputs of {lengths} tokens"


def spec_of(model: Path, engine: str) -> Detoxify:
    """The recipe's decoding, forced to a length."""
    return Detoxify.model_validate(
        {
            "model": {"name": str(model)},
            "input": {"path": "unused"},
            "prefix": PREFIX,
            "max_length": MAX_LENGTH,
            "decoding": DECODING,
            "engine": {"name": engine},
        }
    )


def bytes_on_disk(folder: Path) -> int:
    """Of the weights."""
    names = (WEIGHTS, "model.safetensors")
    return sum((folder / name).stat().st_size for name in names if (folder / name).is_file())


def measure(folder: Path, sources: list[str], num_threads: int) -> dict[str, dict[str, ModelSpeed]]:
    """Way → teacher and student, which take turns."""
    found = {}
    for way, (engine, rows, rounds) in ENGINES.items():
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as unused:
            found[way] = measure_speed(
                {name: spec_of(folder / f"{name}-{way}", engine) for name in SHAPES},
                sources[:rows],
                rounds=rounds,
                num_threads=num_threads,
                folder=Path(unused),
                should_stop=lambda: False,
                done=lambda number: None,
            )
        for name, speed in found[way].items():
            print_line(name, way, speed, bytes_on_disk(folder / f"{name}-{way}"))
        print(f"({time.perf_counter() - began:.0f} s)", file=sys.stderr, flush=True)
    return found


def print_line(name: str, way: str, speed: ModelSpeed, disk: int) -> None:
    """A line of the table."""
    times = f"{speed.rows_per_second:8.2f} {speed.latency(0.5) * 1e3:9.0f} {speed.latency(0.95) * 1e3:9.0f}"
    sizes = f"{speed.model_bytes / 1e6:10,.0f} {speed.peak_bytes / 1e6:10,.0f} {disk / 1e6:8,.0f}"
    print(f"{name:8} {way:7} {times} {sizes}", flush=True)


def compare(found: dict[str, dict[str, ModelSpeed]], folder: Path) -> dict[str, float]:
    """Student against teacher, in each way and between the ways."""
    result: dict[str, float] = {}
    for way, pair in found.items():
        student, teacher = pair["student"], pair["teacher"]
        result[f"speedup_{way}"] = student.times_faster(teacher)
        result[f"latency_speedup_{way}"] = student.times_sooner(teacher)
        result[f"memory_ratio_{way}"] = student.memory_ratio(teacher)
        result[f"process_memory_ratio_{way}"] = student.peak_bytes / teacher.peak_bytes
        disk = {name: bytes_on_disk(folder / f"{name}-{way}") for name in SHAPES}
        result[f"disk_ratio_{way}"] = disk["student"] / disk["teacher"]
    ours, theirs, plain = found["int8"]["student"], found["recipe"]["teacher"], found["fp32"]["teacher"]
    result["speedup_student_int8_teacher_fp32"] = ours.rows_per_second / plain.rows_per_second
    result["memory_ratio_student_int8_teacher_fp32"] = ours.memory_ratio(plain)
    # The recipe's rate is one row at a time.
    result["speedup_student_int8_teacher_recipe"] = ours.rows_per_second * theirs.latency(0.5)
    result["memory_ratio_student_int8_teacher_recipe"] = ours.memory_ratio(theirs)
    return result


def main() -> None:
    """Measure all, print the table, and the result as JSON last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    splits = load_pairs(_dataset())
    texts = [text for pair in splits.train for text in (PREFIX + pair.source, *pair.targets)]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        result = make_models(folder, texts)
        sources = [pair.source for pair in splits.test]
        check_length(folder / "student-fp32", sources[:32], options.threads)
        print("model    way       rows/s  p50 in ms p95 in ms   model MB process MB  disk MB", flush=True)
        result |= compare(measure(folder, sources, options.threads), folder)
    print(f"the recipe says: 3 to 5 times faster, 75 % less memory; int8: {result['speedup_int8']:.2f} times, ", end="")
    print(f"{1 - result['memory_ratio_int8']:.0%} less memory; float32: {result['speedup_fp32']:.2f} times, ", end="")
    print(f"{1 - result['memory_ratio_fp32']:.0%} less")
    print(json.dumps({key: round(value, 3) for key, value in result.items()}))


if __name__ == "__main__":
    main()
