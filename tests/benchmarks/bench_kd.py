"""What distillation gains, with three seeds and intervals: ``make bench-kd`` (about an hour on two cores, resumable).

On the sample and on ParaDetox, from-scratch T5s with a copy warm-up: a teacher; a small student trained with
cross-entropy alone; the same student distilled (KD); and distilled with the teacher's own rewrites of an unlabelled
pool added to its pairs (sequence-level KD). Same steps, same learning rate, same rows, same seeds. All are judged on
the whole test split by the embedded judges, in fp32 on the engine that the bulk uses. Every stage is done once: run
again, the command goes on where it was. The last line is JSON.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet

from configs.schema.kinds import SPEC, Detoxify
from jobs import distill, evaluate, finetune, prepare
from jobs.context import JobContext, JobResult
from jobs.detoxify import Detoxifier
from jobs.metrics import Bootstrap, Values

FOLDER = Path(".bench-kd")
SHARED = Path(__file__).parents[3] / "shared" / "data"
PARADETOX, POOL = SHARED / "paradetox.tsv", SHARED / "paradetox_cannot_rewrite.tsv"
SEEDS = (1, 2, 3)
STUDENTS = {"ce": "student, CE only", "kd": "student, KD", "sequence_kd": "student, KD + sequence-level KD"}
"""Key → name in the table."""
_SHORT = {"ce": "CE only", "kd": "KD", "sequence_kd": "KD + sequence-level KD", "teacher": "teacher"}
METRICS = ("style", "content_reference", "fluency", "joint")
VERBS: Mapping[str, Callable[[Any, JobContext], JobResult]] = {
    "prepare": prepare.run,
    "finetune": finetune.run,
    "distill": distill.run,
    "evaluate": evaluate.run,
}
ROWS_IN_CALL = 256

log = logging.getLogger("bench_kd")


@dataclass(frozen=True)
class Plan:
    """What is trained on one dataset."""

    prepare: Mapping[str, Any]
    teacher: Mapping[str, Any]
    """Shape."""
    student: Mapping[str, Any]
    """Shape."""
    training: Mapping[str, Any]
    max_length: int
    teacher_training: Mapping[str, Any] = field(default_factory=dict)
    """What is different for the teacher."""
    pool: Callable[[Path], Iterator[str]] = field(kw_only=True)
    """Unlabelled comments; is given the folder that prepare wrote."""


def sample_plan() -> Plan:
    """The quickstart's data, models and steps."""
    dataset = {"name": "sample", "source_column": "toxic", "target_column": "neutral", "split": {"column": "split"}}
    return Plan(
        prepare={
            "dataset": {**dataset, "max_length": 48},
            "sample": {"num_pairs": 6000, "num_dump_rows": 2000},
            "tokenizer": {"vocab_size": 1000},
            "judges": {"fluency_steps": 250},
        },
        teacher=_shape(128, layers=2, ffn=384, heads=4),
        student=_shape(80, layers=2, ffn=256, heads=4),
        training={
            "batch_size": 32,
            "learning_rate": 2e-3,
            "max_steps": 450,
            "warmup_steps": 20,
            "dropout": 0.0,
            "copy_warmup": {"steps": 120, "batch_size": 32, "learning_rate": 2e-3},
        },
        max_length=48,
        pool=lambda folder: _column(folder / "dump" / "dump.csv", "comment"),
    )


def paradetox_plan() -> Plan:
    """All of ParaDetox; the pool is the comments that its annotators could not rewrite."""
    dataset = {
        "name": str(PARADETOX),
        "source_column": "toxic",
        "target_column": ["neutral1", "neutral2", "neutral3"],
        "max_length": 64,
    }
    return Plan(
        prepare={"dataset": dataset, "tokenizer": {"vocab_size": 4000}, "judges": {"fluency_steps": 400}},
        teacher=_shape(192, layers=3, ffn=576, heads=6),
        student=_shape(96, layers=2, ffn=288, heads=4),
        training={
            "batch_size": 32,
            "learning_rate": 1.5e-3,
            "max_steps": 1600,
            "warmup_steps": 50,
            "dropout": 0.05,
            "copy_warmup": {"steps": 300, "batch_size": 32, "learning_rate": 1.5e-3},
        },
        # At the students' rate three layers don't learn to copy: validation CE 3.8 in the place of 2.3.
        teacher_training={
            "learning_rate": 7e-4,
            "max_steps": 2000,
            "copy_warmup": {"steps": 600, "batch_size": 32, "learning_rate": 7e-4},
        },
        max_length=64,
        pool=lambda folder: (text.strip().strip('"').strip() for text in _column(POOL, "INPUT:toxic_comment")),
    )


PLANS = {"sample": sample_plan, "paradetox": paradetox_plan}


def run_stage(folder: Path, spec: Mapping[str, Any], *, num_threads: int) -> None:
    """Do one job, unless it was done; a training that was cut off goes on from its last checkpoint."""
    if (folder / "done.json").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    log.info("%s: %s starts", folder.parent.name, folder.name)
    began = time.monotonic()
    checked: Any = SPEC.validate_python(spec)
    context = JobContext(
        folder,
        lambda figures, step: None,
        lambda: False,
        num_threads,
        checkpoints=folder / "checkpoints",
        cache=folder.parent / "cache",
    )
    result = VERBS[checked.kind](checked, context)
    (folder / "done.json").write_text(json.dumps(result.as_dict(), indent=2), "utf-8")
    log.info("%s: %s took %.0f s", folder.parent.name, folder.name, time.monotonic() - began)


def augment(folder: Path, plan: Plan, data: Path, teacher: Path, *, num_threads: int) -> Path:
    """The teacher's kept rewrites of the pool as a file of pairs."""
    file = folder / "rows.csv"
    if file.is_file():
        return file
    folder.mkdir(parents=True, exist_ok=True)
    spec = Detoxify.model_validate(
        {
            "model": {"name": str(teacher)},
            "input": {"path": "pool.csv"},
            "max_length": plan.max_length,
            "decoding": {"num_beams": 4},
            "samples": 4,
            "keep": {"gate": str(data / "judges"), "style": 0.5, "content": 0.6, "not_copy": True},
        }
    )
    texts = list(dict.fromkeys(text for text in plan.pool(data) if text))
    detoxifier = Detoxifier.load(spec, num_threads=num_threads)
    rows: list[list[str]] = []
    for start in range(0, len(texts), ROWS_IN_CALL):
        part = texts[start : start + ROWS_IN_CALL]
        for text, outcome in zip(part, detoxifier.rewrite(part), strict=True):
            if outcome.text is not None and outcome.status == "rewritten":
                rows.append([text, *[outcome.text, *outcome.others, "", "", ""][:4]])
    temporary = file.with_suffix(".part")
    with temporary.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([["source", *_TARGETS], *rows])
    temporary.rename(file)
    log.info("%s: %d of %d comments of the pool have a rewrite that is kept", folder.parent.name, len(rows), len(texts))
    return file


_TARGETS = ("target1", "target2", "target3", "target4")


def run_plan(name: str, folder: Path, seeds: Sequence[int], *, num_threads: int) -> dict[str, Any]:
    """All stages of one dataset; its figures."""
    plan = PLANS[name]()

    def stage(key: str, **spec: Any) -> Path:
        run_stage(folder / key, spec, num_threads=num_threads)
        return folder / key

    data = stage("data", kind="prepare", **plan.prepare)
    pairs = {"name": str(data / "dataset"), "max_length": plan.max_length}
    tokenizer = str(data / "tokenizer")

    def training(seed: int) -> dict[str, Any]:
        return {"grad_accumulation": 1, "schedule": "cosine", "seed": seed, **plan.training}

    init = {"init": dict(plan.teacher), "tokenizer": tokenizer}
    teacher = stage(
        "teacher", kind="finetune", dataset=pairs, model=init, training=training(1) | dict(plan.teacher_training)
    )
    teacher /= "model"
    small = {"init": dict(plan.student), "tokenizer": tokenizer}
    distilled: dict[str, Any] = {"kind": "distill", "teacher_model": {"name": str(teacher)}, "teacher_cache": True}
    distilled["student_model"] = small
    models = {"teacher": teacher}
    for seed in seeds:
        for key, extra in (("ce", None), ("kd", None), ("sequence_kd", True)):
            if extra:
                rows = augment(folder / "augment", plan, data, teacher, num_threads=num_threads)
                extended = {"name": str(rows), "source_column": "source", "target_column": list(_TARGETS)}
                spec = {**distilled, "dataset": {**pairs, "extra": extended}}
            elif key == "kd":
                spec = {**distilled, "dataset": pairs}
            else:
                spec = {"kind": "finetune", "dataset": pairs, "model": small}
            models[f"{key}-{seed}"] = stage(f"{key}-{seed}", training=training(seed), **spec) / "model"
    systems: dict[str, Any] = {key: {"control": key} for key in ("copy", "delete", "reference")}
    systems |= {key: {"model": {"name": str(path)}} for key, path in models.items()}
    judges = {"trained": str(data / "judges")}
    scores = stage("scores", kind="evaluate", dataset=pairs, systems=systems, judges=judges, speed=None)
    return summarize(scores / "scores" / "rows.parquet", seeds)


def summarize(file: Path, seeds: Sequence[int]) -> dict[str, Any]:
    """Means with intervals over rows, a student's row being its mean over the seeds; paired differences of joint."""
    table = pyarrow.parquet.read_table(file, columns=["system", *METRICS]).to_pydict()
    systems = np.array(table["system"])
    columns: dict[str, dict[str, Values]] = {metric: {} for metric in METRICS}
    spread: dict[str, list[float]] = {}
    for metric in METRICS:
        values = np.array(table[metric])
        for name in dict.fromkeys(table["system"]):
            columns[metric][name] = values[systems == name]
        for key in STUDENTS:
            found = [columns[metric].pop(f"{key}-{seed}") for seed in seeds]
            columns[metric][key] = np.mean(found, axis=0)
            spread[key] = [float(column.mean()) for column in found]
    joint = columns["joint"]
    bootstrap = Bootstrap(len(joint["copy"]), num_resamples=1000, seed=42)
    pairs = {"kd_minus_ce": ("kd", "ce"), "sequence_kd_minus_kd": ("sequence_kd", "kd")}
    pairs |= {"sequence_kd_minus_ce": ("sequence_kd", "ce"), "teacher_minus_ce": ("teacher", "ce")}
    compared = bootstrap.compare([(joint[one], joint[other]) for one, other in pairs.values()])
    estimates = {metric: bootstrap.estimate(list(named.values())) for metric, named in columns.items()}
    return {
        "num_rows": len(joint["copy"]),
        "systems": {
            name: {metric: _rounded(estimates[metric][index]) for metric in METRICS} for index, name in enumerate(joint)
        },
        "joint_of_each_seed": {key: [round(value, 4) for value in values] for key, values in spread.items()},
        "differences": {
            key: {**dict(zip(("value", "low", "high"), _rounded(item.difference), strict=True)), "p": item.p_value}
            for key, item in zip(pairs, compared, strict=True)
        },
    }


def render(name: str, figures: Mapping[str, Any]) -> str:
    """The table of one dataset as Markdown."""
    lines = [f"**{name}**, {figures['num_rows']:,} test rows", ""]
    lines += ["| system | style | content vs. reference | fluency | joint | joint of each seed |"]
    lines += ["| --- | ---: | ---: | ---: | ---: | ---: |"]
    for key, found in figures["systems"].items():
        cells = [f"{found[metric][0]:.3f}" for metric in METRICS[:-1]]
        cells.append("{:.3f} [{:.3f}, {:.3f}]".format(*found["joint"]))
        cells.append(", ".join(f"{value:.3f}" for value in figures["joint_of_each_seed"].get(key, ())))
        lines.append(f"| {' | '.join([STUDENTS.get(key, key), *cells])} |")
    lines.append("")
    for key, item in figures["differences"].items():
        what = " minus ".join(_SHORT[name] for name in key.split("_minus_"))
        lines.append("- {}: {value:+.3f} [{low:+.3f}, {high:+.3f}], p = {p:.3f}".format(what, **item))
    return "\n".join([*lines, ""])


def main() -> None:
    """Do what is not done yet, print the tables, and the figures as JSON last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", choices=sorted(PLANS), default=list(PLANS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS), help="seeds of the students")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="what was done already is in it")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    results = {
        name: run_plan(name, options.folder.absolute() / name, options.seeds, num_threads=options.threads)
        for name in options.datasets
    }
    for name, figures in results.items():
        print(render(name, figures))
    print(json.dumps(results))


def _shape(width: int, *, layers: int, ffn: int, heads: int) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "layers": {"encoder": layers, "decoder": layers},
        "ffn_size": ffn,
        "attention_heads": heads,
    }


def _column(file: Path, name: str) -> Iterator[str]:
    """A column of a CSV or TSV file."""
    delimiter = "\t" if file.suffix == ".tsv" else ","
    with file.open(encoding="utf-8", newline="") as stream:
        reader = csv.reader(stream, delimiter=delimiter)
        place = next(reader).index(name)
        for row in reader:
            if len(row) > place:
                yield row[place]


def _rounded(estimate: Any) -> list[float]:
    return [round(float(value), 4) for value in (estimate.value, estimate.low, estimate.high)]


if __name__ == "__main__":
    main()
