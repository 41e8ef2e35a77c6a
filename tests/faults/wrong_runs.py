"""Inputs that only a job can find wrong: each a spec, and the words that its run's reason must hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.jobs import tiny

NO_HUB = "http://127.0.0.1:9"
"""Where nobody listens: a machine without a network."""
NO_COMPILER = "/nowhere/g++"

Spec = dict[str, Any]


@dataclass(frozen=True)
class Material:
    """A folder with a dataset, a tokenizer, a model, an exported model's stand-ins, and broken things beside them."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Material:
        tiny.write_pairs(folder / "pairs.csv", 60)
        tiny.make_model_folder(folder / "model", tiny.make_tokenizer(folder / "tokenizer"))
        (folder / "no-model").mkdir()
        (folder / "bert").mkdir()
        (folder / "bert" / "config.json").write_text('{"model_type": "bert"}')
        tiny.write_pairs(folder / "more.csv", 5)
        (folder / "empty.csv").touch()
        (folder / "header.csv").write_text("toxic,neutral\n")
        return cls(folder)

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def dataset(self, name: str = "pairs.csv", **changes: Any) -> Spec:
        values = {"source_column": "toxic", "target_column": "neutral", "max_length": 16}
        return {"name": self.path(name) if "." in name else name, **values, **changes}

    def prepare(self, name: str = "pairs.csv", **changes: Any) -> Spec:
        return {"kind": "prepare", "dataset": self.dataset(name, **changes)}

    def finetune(self, model: str, **training: Any) -> Spec:
        settings = {"max_steps": 1, "batch_size": 2, **training}
        return {"kind": "finetune", "dataset": self.dataset(), "model": {"name": model}, "training": settings}

    def evaluate(self, systems: Spec, **judges: Any) -> Spec:
        given = {"trained": self.path("no-judges"), **judges}
        return {"kind": "evaluate", "dataset": self.dataset(), "systems": systems, "judges": given}

    def detoxify(self, file: str = "pairs.csv", model: str = "model", column: str = "toxic") -> Spec:
        source = {"path": self.path(file), "text_column": column}
        return {"kind": "detoxify", "model": {"name": self.path(model)}, "input": source}


@dataclass(frozen=True)
class WrongRun:
    """One bad input."""

    name: str
    spec: Callable[[Material], Spec]
    told: tuple[str, ...]
    """Field, value, remedy: each must stand in the reason."""


COPY: Spec = {"copy": {"control": "copy"}}

WRONG_RUNS = (
    WrongRun(
        "a dataset that isn't there",
        lambda m: m.prepare("pair.csv"),
        ("dataset.name = ", "pair.csv: no such file", "did you mean ", "pairs.csv?"),
    ),
    WrongRun("an empty dataset", lambda m: m.prepare("empty.csv"), ("dataset.name = ", "is empty", "give a file")),
    WrongRun(
        "a dataset of only a header", lambda m: m.prepare("header.csv"), ("header.csv", "no pair in it", "give a data")
    ),
    WrongRun(
        "a source column that isn't there",
        lambda m: m.prepare(source_column="toxik"),
        ("dataset.source_column = 'toxik'", "did you mean 'toxic'?", "toxic, neutral"),
    ),
    WrongRun(
        "a split column that isn't there",
        lambda m: m.prepare(split={"column": "part"}),
        ("dataset.split.column = 'part'", "toxic, neutral"),
    ),
    WrongRun(
        "extra pairs without the columns",
        lambda m: m.prepare(extra={"name": m.path("more.csv"), "source_column": "comment"}),
        ("dataset.extra.source_column = 'comment'", "more.csv has no such column", "toxic, neutral"),
    ),
    WrongRun(
        "extra pairs that aren't there",
        lambda m: m.prepare(extra=m.path("pair.csv")),
        ("dataset.extra.name = ", "pair.csv: no such file", "did you mean ", "pairs.csv?"),
    ),
    WrongRun(
        "a hub dataset without a network",
        lambda m: m.prepare("ScaDSAI/ParaDeHate"),
        ("dataset.name = 'ScaDSAI/ParaDeHate'", "the hub can't be reached", "name: sample"),
    ),
    WrongRun(
        "a hub model without a network",
        lambda m: m.finetune("t5-small"),
        ("model 't5-small'", "the hub can't be reached", "give init and tokenizer"),
    ),
    WrongRun(
        "a hub judge without a network",
        lambda m: m.evaluate(COPY, style="unitary/toxic-bert"),
        ("judges.style = 'unitary/toxic-bert'", "the hub can't be reached", "embedded"),
    ),
    WrongRun(
        "a folder that is no model",
        lambda m: m.finetune(m.path("no-model")),
        ("no-model' is no model", "name the fold"),
    ),
    WrongRun("a file as a model", lambda m: m.finetune(m.path("pairs.csv")), ("pairs.csv' is a file", "name the fold")),
    WrongRun("a model of another kind", lambda m: m.finetune(m.path("bert")), ("bert' is no T5", "name a T5")),
    WrongRun(
        "an export of what is no model",
        lambda m: {"kind": "export", "model": {"name": m.path("no-model")}},
        ("no-model' is no model", "name the folder"),
    ),
    WrongRun(
        "a system that is no model",
        lambda m: m.evaluate({**COPY, "student": {"model": {"name": m.path("gone")}}}),
        ("systems.student", "gone' doesn't exist", "name an existing folder"),
    ),
    WrongRun(
        "deepspeed without a compiler",
        lambda m: m.finetune(m.path("model"), deepspeed="zero2"),
        ("training.deepspeed needs a C++ compiler", NO_COMPILER, "install g++", "remove training.deepspeed"),
    ),
)
"""Of kinds that run in one process."""

WRONG_DUMPS = (
    WrongRun(
        "a dump that isn't there", lambda m: m.detoxify("pair.csv"), ("input.path = ", "no such file", "did you mean ")
    ),
    WrongRun("an empty dump", lambda m: m.detoxify("empty.csv"), ("input.path = ", "is empty", "give one with rows")),
    WrongRun(
        "a dump of only a header", lambda m: m.detoxify("header.csv"), ("input.path = ", "no rows", "give a file")
    ),
    WrongRun(
        "a text column that isn't there",
        lambda m: m.detoxify(column="text"),
        ("input.text_column = 'text'", "toxic, neutral"),
    ),
    WrongRun(
        "a dump with a model that is none",
        lambda m: m.detoxify(model="no-model"),
        ("no-model' is no model", "name the"),
    ),
    WrongRun(
        "a gate that is no judge",
        lambda m: {**m.detoxify(), "keep": {"gate": m.path("no-model")}},
        ("keep.gate = ", "no-model' holds no gate that prepare trained", "name the folder"),
    ),
)
