"""Where outputs come from: controls, files of rows, models; and what a model costs."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from configs.schema.kinds import Evaluate, Export
from configs.schema.models import ModelSource
from jobs import systems
from jobs.blocklist import Blocklist
from jobs.context import JobStopped
from jobs.data import DataError, Pair, PairSplits
from jobs.detoxify import Detoxifier
from jobs.export import run as export
from jobs.generation import Generated
from jobs.models import count_parameters, load_model
from jobs.systems import collect, cost_of, read_outputs, rewrite_all
from tests.jobs import tiny

TRAIN = (Pair("a stupid plan", ("a plan",)), Pair("this stupid road", ("this road",)))
TEST = (Pair("the stupid house", ("the house", "a house")), Pair("my stupid lunch", ("my lunch",)))
SPLITS = PairSplits(TRAIN, (), TEST)
FIELD = "systems.ours.rows"


class Scripted:
    """Answers with a function, and remembers the calls; a token is a word."""

    def __init__(self, answer: Callable[[str], str]) -> None:
        self.calls: list[list[str]] = []
        self._answer = answer

    def generate(self, texts: Sequence[str]) -> list[str]:
        return [self._answer(text) for text in texts]

    def decode(self, texts: Sequence[str], *, blocklists: Sequence[Blocklist] | None = None) -> list[Generated]:
        self.calls.append(list(texts))
        return [Generated(text) for text in self.generate(texts)]

    def candidates(
        self, texts: Sequence[str], count: int, *, blocklists: Sequence[Blocklist] | None = None
    ) -> list[tuple[Generated, ...]]:
        return [(output,) * count for output in self.decode(texts, blocklists=blocklists)]

    def count_tokens(self, text: str) -> int:
        return len(text.split()) + 1

    def fits(self, text: str) -> bool:
        return self.count_tokens(text) <= 6


def spec(named: dict[str, Any], **changes: Any) -> Evaluate:
    return Evaluate.model_validate(
        {"dataset": {"name": "unused"}, "systems": named, "judges": {"trained": "unused"}, **changes}
    )


def gather(asked: Evaluate, *, should_stop: Callable[[], bool] = lambda: False) -> tuple[Any, list[int]]:
    seen: list[int] = []
    return collect(asked, SPLITS, TEST, num_threads=1, should_stop=should_stop, done=seen.append), seen


def write_rows(file: Path, rows: Sequence[dict[str, Any]]) -> Path:
    if file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif file.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), file)
    else:
        with file.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), delimiter="\t" if file.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return file


ROWS = [{"source": "the stupid house", "output": "the house"}, {"source": " my stupid lunch", "output": ""}]


def test_the_controls_are_the_source_the_first_reference_and_the_source_without_rude_words() -> None:
    names = {"copy": {"control": "copy"}, "reference": {"control": "reference"}, "delete": {"control": "delete"}}
    outputs, seen = gather(spec(names))
    assert {name: item.texts for name, item in outputs.items()} == {
        "copy": ("the stupid house", "my stupid lunch"),
        "reference": ("the house", "my lunch"),
        "delete": ("the house", "my lunch"),
    }
    assert seen == [1, 2, 3]
    assert outputs["copy"].parameters is outputs["copy"].bytes_on_disk is None


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_rows_of_a_file_are_outputs(ending: str, tmp_path: Path) -> None:
    file = write_rows(tmp_path / f"rows.{ending}", ROWS)
    outputs, _ = gather(spec({"ours": {"rows": str(file)}}))
    assert outputs["ours"].texts == ("the house", "")


def test_an_output_that_is_null_is_empty(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.jsonl", [{**row, "output": None} for row in ROWS])
    assert read_outputs(file, TEST, field=FIELD) == ("", "")


def test_a_limited_evaluation_takes_the_first_rows_of_the_same_file(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.csv", ROWS)
    assert read_outputs(file, TEST[:1], field=FIELD) == ("the house",)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (ROWS[::-1], r"row 0 has another source .* order of the test split"),
        (ROWS[:1], "1 rows for 2 test rows"),
        ([{"source": "the stupid house", "text": "x"}], r"no column 'output'; it needs source and output"),
        ([{"text": "x"}], "no column 'source'"),
    ],
)
def test_a_file_of_other_rows_is_refused(rows: list[dict[str, str]], message: str, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.csv", rows)
    with pytest.raises(DataError, match=rf"systems\.ours\.rows = .*{message}"):
        gather(spec({"ours": {"rows": str(file)}}))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl", b"{", "line 1 is not JSON"),
        ("rows.jsonl", b"[1]\n", "line 1 is no JSON object"),
        ("rows.csv", b"source,output\n\xff\xfe", "not UTF-8"),
        ("rows.csv", b'source,output\na,"b', "broken near a record"),
        ("rows.csv", b"", "the file is empty"),
        ("rows.parquet", b"x", "not a whole Parquet file"),
    ],
)
def test_a_broken_file_is_refused_without_its_text(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"systems\.ours\.rows = .*{name}: {message}"):
        read_outputs(tmp_path / name, TEST, field=FIELD)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.csv", "missing.csv: not a file; correct the path"),
        ("rows.xlsx", r"unknown ending '\.xlsx'; use \.csv, \.tsv, \.jsonl, \.parquet"),
    ],
)
def test_a_missing_file_or_an_unknown_ending_is_refused(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "rows.xlsx").write_bytes(b"x")
    with pytest.raises(DataError, match=message):
        read_outputs(tmp_path / name, TEST, field=FIELD)


def rewrite(generator: Scripted, sources: Sequence[str], **options: Any) -> systems.Outputs:
    arguments: dict[str, Any] = {"batch_size": 1, "should_stop": lambda: False, **options}
    return rewrite_all(Detoxifier(generator, Blocklist(("Visit",))), sources, **arguments)


def test_outputs_are_those_of_detoxify_in_order_with_their_statuses() -> None:
    sources = ["one two", "three", "same", "one two three four five six seven", "gone"]
    answers = {"same": "same", "gone": " "}
    written = rewrite(Scripted(lambda text: answers.get(text, text.upper())), sources)
    assert written.texts == ("ONE TWO", "THREE", "same", "ONE TWO THREE FOUR FIVE SIX SEVEN", "")
    assert written.statuses == {"rewritten": 3, "unchanged": 1, "quarantined": 1}


def test_calls_hold_some_batches() -> None:
    generator = Scripted(str.upper)
    rewrite(generator, [f"word{number}" for number in range(40)], batch_size=3)
    assert [len(call) for call in generator.calls] == [24, 16]


def test_it_stops_between_calls() -> None:
    generator = Scripted(str.upper)
    with pytest.raises(JobStopped):
        rewrite(generator, ["a"] * 9, should_stop=lambda: len(generator.calls) == 1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    return tiny.make_model_folder(folder / "model", tiny.make_tokenizer(folder / "tokenizer"))


def test_a_trained_model_costs_its_tensors_and_its_weights_file(model: Path) -> None:
    parameters, size = cost_of(ModelSource(name=str(model)))
    assert parameters == count_parameters(load_model(ModelSource(name=str(model))).model)
    assert size == (model / "model.safetensors").stat().st_size


def test_an_exported_model_has_the_parameters_of_the_one_it_came_from(model: Path, tmp_path: Path) -> None:
    asked = Export(model=ModelSource(name=str(model)), quantization="int8")
    result = export(asked, tiny.Recorder().context(tmp_path))
    folder = tmp_path / result.artifacts["model"]
    parameters, size = cost_of(ModelSource(name=str(folder)))
    assert parameters == cost_of(ModelSource(name=str(model)))[0]
    assert size == (folder / "model.bin").stat().st_size


def test_a_model_made_on_the_spot_has_no_cost_on_disk(model: Path) -> None:
    assert cost_of(tiny.tiny_source(model)) == (None, None)


@pytest.mark.parametrize("engine", ["ctranslate2", "transformers"])
def test_a_model_writes_what_its_generator_writes(engine: str, model: Path) -> None:
    asked = spec(
        {"late": {"model": {"name": str(model)}}, "copy": {"control": "copy"}},
        dataset={"name": "unused", "max_length": 16},
        decoding={"num_beams": 2, "max_new_tokens": 12},
        engine={"name": engine},
    )
    outputs, seen = gather(asked)
    assert list(outputs) == ["late", "copy"]
    assert seen == [1, 2]
    late = outputs["late"]
    assert len(late.texts) == len(TEST)
    assert sum(late.statuses.values()) == len(TEST)
    assert (late.parameters, late.bytes_on_disk) == cost_of(ModelSource(name=str(model)))
