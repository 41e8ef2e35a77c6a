"""One tiny run of each kind on a few hundred rows of ParaDetox, through a whole stack, as a user does it.

Where that file isn't, the same runs work on the project's own sample, written with the same columns.
"""

from __future__ import annotations

import csv
import json
import math
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from cluster.runs import Run, State
from configs.schema.kinds import Distill
from tests.e2e.paradetox import COLUMNS, read_table, write_sample, write_table
from tests.live_stack import ROOT, LiveStack, live_stack

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]

PARADETOX = "../shared/data/paradetox.tsv"
"""From the repository's root, where the commands run."""
NUM_SOURCES = 300
NUM_DUMP_ROWS = 300
SHAPE = {"hidden_size": 48, "layers": {"encoder": 1, "decoder": 1}, "ffn_size": 96, "attention_heads": 2}
TRAINING = {"batch_size": 16, "grad_accumulation": 1, "learning_rate": 3e-3, "max_steps": 60, "log_steps": 10}
WARMUP = {"copy_warmup": {"steps": 200, "batch_size": 16, "learning_rate": 3e-3}}
"""Enough for a model made on the spot to write some words for most comments."""
METRICS = ("style", "style_share", "content_source", "content_reference", "fluency", "joint")


@pytest.fixture(scope="module")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a spec names; relative where it can be, so that the way a relative path takes is tried too."""
    if (ROOT / PARADETOX).is_file():
        return PARADETOX
    file = tmp_path_factory.mktemp("data") / "pairs.tsv"
    write_sample(file)
    return str(file)


@pytest.fixture(scope="module")
def dump(pairs_file: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first rows as a dump; those with a line break inside a cell first."""
    rows = read_table(ROOT / pairs_file)
    chosen = [*islice((row for row in rows if "\n" in row["toxic"]), 10), *rows[:NUM_DUMP_ROWS]][:NUM_DUMP_ROWS]
    file = tmp_path_factory.mktemp("dump") / "dump.tsv"
    write_table(file, [[row[name] for name in COLUMNS] for row in chosen])
    return file


@pytest.fixture(scope="module")
def stack() -> Iterator[LiveStack]:
    with live_stack(num_cpus=2) as running:
        yield running


def pairs_of(pairs_file: str) -> dict[str, Any]:
    return {
        "name": pairs_file,
        "source_column": "toxic",
        "target_column": list(COLUMNS[1:]),
        "split": {"train": 0.9, "test": 0.1, "seed": 42},
        "limit": NUM_SOURCES,
    }


def finish(stack: LiveStack, spec: dict[str, Any]) -> Run:
    """Submit, follow to the end, and give the run back when it SUCCEEDED."""
    run, done = stack.submit(spec)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}{stack.log_of(run)}"
    assert run.state is State.SUCCEEDED, run.reason
    return run


@pytest.fixture(scope="module")
def prepared(stack: LiveStack, pairs_file: str) -> Run:
    judges = {"fluency_steps": 60, "fluency_hidden_size": 32, "fluency_layers": 1}
    spec = {"kind": "prepare", "dataset": pairs_of(pairs_file), "tokenizer": {"vocab_size": 700}, "judges": judges}
    return finish(stack, spec)


@pytest.fixture(scope="module")
def dataset(stack: LiveStack, prepared: Run) -> dict[str, Any]:
    return {"name": str(stack.artifact(prepared, "dataset")), "max_length": 64}


@pytest.fixture(scope="module")
def made(stack: LiveStack, prepared: Run) -> dict[str, Any]:
    """A model made on the spot, with the tokenizer that was trained."""
    return {"init": SHAPE, "tokenizer": str(stack.artifact(prepared, "tokenizer"))}


@pytest.fixture(scope="module")
def teacher(stack: LiveStack, dataset: dict[str, Any], made: dict[str, Any]) -> Run:
    return finish(stack, {"kind": "finetune", "dataset": dataset, "model": made, "training": {**TRAINING, **WARMUP}})


def distill(stack: LiveStack, teacher: Run, dataset: Any, made: Any, **training: Any) -> Run:
    spec = {
        "kind": "distill",
        "dataset": dataset,
        "teacher_model": {"name": str(stack.artifact(teacher, "model"))},
        "student_model": made,
        "training": {**TRAINING, **training},
    }
    return finish(stack, spec)


@pytest.fixture(scope="module")
def student(stack: LiveStack, teacher: Run, dataset: dict[str, Any], made: dict[str, Any]) -> Run:
    """Distilled under DeepSpeed."""
    return distill(stack, teacher, dataset, made, deepspeed="zero2", **WARMUP)


@pytest.fixture(scope="module")
def exported(stack: LiveStack, prepared: Run, student: Run, dataset: dict[str, Any]) -> Run:
    judges = {"trained": str(stack.artifact(prepared, "judges"))}
    # So short a training leaves a model that int8 may well change: any fall is let through.
    gate = {"dataset": dataset, "judges": judges, "max_drop": 1.0, "limit": 10}
    model = {"name": str(stack.artifact(student, "model"))}
    return finish(stack, {"kind": "export", "model": model, "gate": gate, "bundle": True})


def losses(stack: LiveStack, run: Run, name: str = "loss") -> list[float]:
    return [point.value for point in stack.store.points(run.id, name)]


def has_fallen(values: Sequence[float]) -> bool:
    return len(values) >= 6 and all(map(math.isfinite, values)) and values[-1] < 0.97 * values[0]


def test_prepare_splits_a_table_by_distinct_source_and_trains_tokenizer_and_judges(
    stack: LiveStack, prepared: Run
) -> None:
    folder = stack.artifact(prepared, "dataset")
    splits = {
        name: [json.loads(line) for line in (folder / f"{name}.jsonl").read_text("utf-8").splitlines()]
        for name in ("train", "validation", "test")
    }
    sizes = {name: len(rows) for name, rows in splits.items()}
    assert sizes == {"train": 256, "validation": 14, "test": 30}
    assert len({row["source"] for rows in splits.values() for row in rows}) == NUM_SOURCES
    assert max(len(row["targets"]) for row in splits["train"]) > 1
    figures = {item.metric: item.value for item in stack.store.summaries(prepared.id)}
    assert {name: figures[f"num_{name}"] for name in sizes} == sizes

    from transformers import AutoTokenizer

    from jobs.judges.loading import EMBEDDED
    from jobs.judges.style import load_style

    tokenizer = AutoTokenizer.from_pretrained(stack.artifact(prepared, "tokenizer"))
    text = splits["test"][0]["source"]
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text
    judges = stack.artifact(prepared, "judges")
    assert {"gate", "fluency"} <= {item.name for item in judges.iterdir()}
    assert load_style(EMBEDDED).toxicity([text]).shape == (1,)


def test_finetune_lowers_its_loss_and_leaves_a_model_that_loads(stack: LiveStack, teacher: Run) -> None:
    assert has_fallen(losses(stack, teacher))
    assert_loads(stack.artifact(teacher, "model"))


def test_distill_under_deepspeed_lowers_both_losses_and_leaves_a_model_that_loads(
    stack: LiveStack, student: Run
) -> None:
    assert has_fallen(losses(stack, student))
    assert has_fallen(losses(stack, student, "ce"))
    assert losses(stack, student, "kd")[-1] < losses(stack, student, "kd")[0]
    assert_loads(stack.artifact(student, "model"))


def test_distill_on_two_workers_lowers_its_loss_and_leaves_one_model(
    stack: LiveStack, teacher: Run, dataset: dict[str, Any], made: dict[str, Any]
) -> None:
    run = distill(stack, teacher, dataset, made, num_workers=2, batch_size=8)
    assert has_fallen(losses(stack, run))
    assert_loads(stack.artifact(run, "model"))


def assert_loads(folder: Path) -> None:
    from configs.schema.models import ModelSource
    from jobs.models import count_parameters, load_model

    loaded = load_model(ModelSource(name=str(folder)))
    assert count_parameters(loaded.model) > 30_000
    assert loaded.model.config.d_model == SHAPE["hidden_size"]


def test_export_leaves_a_model_that_the_engine_runs(stack: LiveStack, exported: Run) -> None:
    from configs.schema.inference import Decoding, Engine, Safety
    from configs.schema.models import ModelSource
    from jobs.generation import load_generator

    folder = stack.artifact(exported, "model")
    generator = load_generator(
        ModelSource(name=str(folder)),
        prefix="detoxify: ",
        max_length=64,
        decoding=Decoding(),
        safety=Safety(),
        engine=Engine(),
        num_threads=1,
    )
    assert len(generator.generate(["what a day", "go on"])) == 2
    record = json.loads((folder / "distox.json").read_text("utf-8"))
    assert record["export"]["quantization"] == "int8"
    assert record["export"]["gate"]["num_rows"] == 10
    assert (record["kind"], record["max_length"]) == ("distill", 64)


def test_export_leaves_a_bundle_that_runs_by_itself(stack: LiveStack, exported: Run) -> None:
    script = stack.artifact(exported, "bundle") / "detoxify.py"
    done = subprocess.run(
        [sys.executable, "-I", script, "what a day"], capture_output=True, encoding="utf-8", check=True
    )
    assert len(done.stdout.splitlines()) == 1
    assert stack.artifact(exported, "bundle_zip").stat().st_size > 1000
    figures = {item.metric: item.value for item in stack.store.summaries(exported.id)}
    assert figures["bundle_peak_bytes"] > 2e7


def test_detoxify_gives_every_row_of_a_table_once_and_in_order(stack: LiveStack, exported: Run, dump: Path) -> None:
    spec = {
        "kind": "detoxify",
        "model": {"name": str(stack.artifact(exported, "model"))},
        "input": {"path": str(dump), "text_column": "toxic"},
        "queue": {"rows_per_task": 40},
        "resources": {"num_workers": 2},
    }
    run = finish(stack, spec)
    given, written = read_table(dump), read_table(stack.artifact(run, "rows"))
    assert len(written) == NUM_DUMP_ROWS
    assert [{name: row[name] for name in COLUMNS} for row in written] == given
    assert list(written[0]) == [*COLUMNS, "detoxified", "distox_status"]
    assert {row["distox_status"] for row in written} <= {"rewritten", "unchanged", "passed", "flagged", "quarantined"}
    assert sum(row["detoxified"] != "" for row in written) > NUM_DUMP_ROWS / 2
    figures = {item.metric: item.value for item in stack.store.summaries(run.id)}
    assert figures["rows"] == NUM_DUMP_ROWS
    assert sum(value for name, value in figures.items() if name.startswith("rows_") and "second" not in name) == 300


def test_evaluate_scores_every_system_with_intervals(
    stack: LiveStack, prepared: Run, teacher: Run, exported: Run, dataset: dict[str, Any]
) -> None:
    systems = {
        **{name: {"control": name} for name in ("copy", "delete", "reference")},
        "teacher": {"model": {"name": str(stack.artifact(teacher, "model"))}},
        "student": {"model": {"name": str(stack.artifact(exported, "model"))}},
    }
    judges = {"trained": str(stack.artifact(prepared, "judges"))}
    run = finish(stack, {"kind": "evaluate", "dataset": dataset, "systems": systems, "judges": judges})
    found = {(item.system, item.metric): item for item in stack.store.summaries(run.id)}
    for system in systems:
        for metric in METRICS:
            item = found[system, metric]
            assert item.low is not None, (system, metric)
            assert item.high is not None, (system, metric)
            assert item.low <= item.value <= item.high
            assert item.count == 30
    assert found["copy", "content_source"].value > found["delete", "content_source"].value
    assert found["reference", "style"].value > found["copy", "style"].value
    table = (stack.artifact(run, "scores") / "table.md").read_text("utf-8")
    assert all(name in table for name in systems)


def test_a_pipeline_takes_a_table_all_the_way_to_rewritten_rows(stack: LiveStack, pairs_file: str, dump: Path) -> None:
    model = {"init": SHAPE, "tokenizer": "${steps.data.tokenizer}"}
    spec = {
        "kind": "pipeline",
        "name": "road",
        "steps": {
            "data": {"kind": "prepare", "dataset": pairs_of(pairs_file), "tokenizer": {"vocab_size": 700}},
            "teacher": {
                "kind": "finetune",
                "dataset": {"name": "${steps.data.dataset}", "max_length": 64},
                "model": model,
                "training": {**TRAINING, "max_steps": 5},
            },
            "small": {"kind": "export", "model": {"name": "${steps.teacher.model}"}},
            "dump": {
                "kind": "detoxify",
                "model": {"name": "${steps.small.model}"},
                "input": {"path": str(dump), "text_column": "toxic"},
                "decoding": {"num_beams": 1, "max_new_tokens": 24},
            },
        },
    }
    run = finish(stack, spec)
    steps = {step.step: step for step in stack.store.list(parent=run.id)}
    assert set(steps) == {"data", "teacher", "small", "dump"}
    assert {step.state for step in steps.values()} == {State.SUCCEEDED}
    assert len(read_table(stack.artifact(steps["dump"], "rows"))) == NUM_DUMP_ROWS


REWRITES = ("detoxified", "detoxified_2", "detoxified_3")


@pytest.fixture(scope="module")
def pool(stack: LiveStack, prepared: Run, pairs_file: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Comments that the dataset lacks, each twice, and some of test and train, those of test disguised."""
    known = {name: sources_of(stack, prepared, name) for name in ("train", "validation", "test")}
    every = {plain(source) for sources in known.values() for source in sources}
    new = {
        plain(row["toxic"]): row["toxic"] for row in read_table(ROOT / pairs_file) if plain(row["toxic"]) not in every
    }
    chosen = list(new.values())[:40]
    assert len(chosen) == 40
    groups = {"new": chosen, "test": [f'"{text.upper()}"' for text in known["test"]], "train": known["train"][:20]}
    file = tmp_path_factory.mktemp("pool") / "pool.csv"
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["kind", "comment"])
        for kind, texts in {**groups, "again": chosen}.items():
            writer.writerows([kind, text] for text in texts)
    return file


def sources_of(stack: LiveStack, prepared: Run, split: str) -> list[str]:
    lines = (stack.artifact(prepared, "dataset") / f"{split}.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line)["source"] for line in lines]


def plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def test_what_a_teacher_wrote_and_the_gate_kept_joins_the_students_rows_and_nothing_of_test_does(
    stack: LiveStack, prepared: Run, teacher: Run, dataset: dict[str, Any], made: dict[str, Any], pool: Path
) -> None:
    model = {"name": str(stack.artifact(teacher, "model"))}
    augment = {
        "kind": "detoxify",
        "model": model,
        "input": {"path": str(pool), "text_column": "comment"},
        "decoding": {"sampling": {"temperature": 0.7}, "max_new_tokens": 24},
        "samples": 3,
        "keep": {"gate": str(stack.artifact(prepared, "judges")), "style": 0.3, "content": 0.0},
    }
    student = {
        "kind": "distill",
        "dataset": {**dataset, "extra": "${steps.augment.rows}"},
        "teacher_model": model,
        "student_model": made,
        "training": {**TRAINING, "max_steps": 3},
    }
    run = finish(stack, {"kind": "pipeline", "steps": {"augment": augment, "student": student}})
    steps = {step.step: step for step in stack.store.list(parent=run.id)}
    figures = {
        name: {item.metric: item.value for item in stack.store.summaries(step.id)} for name, step in steps.items()
    }
    with stack.artifact(steps["augment"], "rows").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["kind", "comment", *REWRITES, "distox_status"]
    kept = [[row[name] for name in REWRITES if row[name]] for row in rows]
    assert figures["augment"]["candidates_kept"] == sum(map(len, kept))
    counts = [value for name, value in figures["augment"].items() if name.startswith("candidates_")]
    assert sum(counts) == 3 * len(rows), "every candidate is accounted for"

    joined: dict[str, int] = {}
    for row, texts in zip(rows, kept, strict=True):
        if row["kind"] in ("new", "again") and texts:
            joined.setdefault(row["comment"], len(texts))
    leaks = sum(row["kind"] == "test" and bool(texts) for row, texts in zip(rows, kept, strict=True))
    assert len(joined) > 5
    assert leaks > 0, "without any, none could show"
    before = {item.metric: item.value for item in stack.store.summaries(teacher.id)}["train_rows"]
    assert figures["student"]["train_rows"] == before + sum(joined.values())
    assert figures["student"]["extra_in_test"] == leaks

    from jobs.data import load_pairs

    spec = steps["student"].load_spec()
    assert isinstance(spec, Distill)
    trained_on = {plain(pair.source) for pair in load_pairs(spec.dataset).train}
    assert {plain(source) for source in joined} <= trained_on
    assert trained_on.isdisjoint(plain(source) for source in sources_of(stack, prepared, "test"))
