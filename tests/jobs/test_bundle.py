"""The bundle: a folder that rewrites comments with ctranslate2 and tokenizers alone, as distox does."""

from __future__ import annotations

import ast
import json
import random
import subprocess
import sys
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from configs.schema.inference import Decoding, Engine, Safety
from configs.schema.kinds import Export
from configs.schema.models import Layers, ModelSource, Shape
from jobs import export
from jobs.blocklist import Blocklist
from jobs.bundle import build
from jobs.bundle.build import BundleError, assemble_script, try_bundle
from jobs.context import JobContext, JobResult
from jobs.detoxify import Detoxifier
from jobs.generation import Generator, load_generator
from jobs.models import load_tokenizer, make_model
from jobs.text import is_same_text
from jobs.tokenization import train_tokenizer
from tests.jobs import toy

SETTINGS: dict[str, Any] = {"max_length": 48, "decoding": {"max_new_tokens": 16}, "quantization": "float32"}
SOURCES = toy.sentences(70)
BLOCKLIST = Blocklist(["Click here"])


def run(model: Path, output: Path, **changes: Any) -> JobResult:
    output.mkdir(exist_ok=True)
    spec = Export.model_validate({"model": {"name": str(model)}, "bundle": True, **SETTINGS, **changes})
    return export.run(spec, JobContext(output=output, report=lambda *_: None, should_stop=lambda: False))


def generator(model: Path, **changes: Any) -> Generator:
    settings = {**SETTINGS, **changes}
    return load_generator(
        ModelSource(name=str(model)),
        prefix=toy.PREFIX,
        max_length=settings["max_length"],
        decoding=Decoding.model_validate(settings["decoding"]),
        safety=Safety.model_validate(settings.get("safety", {})),
        engine=Engine(),
        num_threads=1,
    )


@pytest.fixture(scope="module")
def output(copying_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundled")
    run(copying_model, folder)
    return folder


def outcomes(folder: Path, comments: Sequence[str], *arguments: str) -> list[dict[str, Any]]:
    """What the script says of the comments, with reasons."""
    done = subprocess.run(
        [sys.executable, "-I", str(folder / "detoxify.py"), "--json", *arguments],
        input="".join(comment + "\n" for comment in comments),
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_without_torch_a_bundle_writes_what_distox_writes(output: Path) -> None:
    expected = generator(output / "model").generate(SOURCES)
    lines, _ = try_bundle(output / "bundle", SOURCES, num_threads=1)
    pairs = list(zip(SOURCES, expected, strict=True))
    # A copy in which only white space differs comes out as it was given.
    assert lines == [source if is_same_text(source, text) else text for source, text in pairs]
    assert len(set(lines)) > 50


def test_with_a_tokenizer_that_prepare_trained_and_random_weights_it_writes_the_same(tmp_path: Path) -> None:
    train_tokenizer([*SOURCES, "Was für ein Unsinn, ey!"], vocab_size=400, folder=tmp_path / "tokenizer")
    tokenizer = load_tokenizer(str(tmp_path / "tokenizer"))
    shape = Shape(hidden_size=32, layers=Layers(encoder=1, decoder=1), ffn_size=64, attention_heads=2)
    model = toy.save(make_model(shape, tokenizer), tokenizer, tmp_path / "random")
    run(model, tmp_path / "out")
    texts = [*SOURCES[:50], "ÄÖ — “quoted” ½ …", "a</s>b <pad> <unk>", "  two  spaces ", "😀 ok", "0" * 20]
    detoxifier = Detoxifier(generator(tmp_path / "out" / "model"), Blocklist(Safety().blocklist))
    expected = detoxifier.rewrite(texts)
    found = outcomes(tmp_path / "out" / "bundle", texts)
    assert [item["text"] for item in found] == [item.text for item in expected]
    assert [item["status"] for item in found] == [item.status.value for item in expected]


def test_a_comment_longer_than_the_window_is_cut_as_distox_cuts_it(copying_model: Path, tmp_path: Path) -> None:
    window = {"max_length": 12, "decoding": {"max_new_tokens": 12}}
    run(copying_model, tmp_path, **window)
    comments = [
        "you are a very silly goose and this plan is rather bad go home now",
        "go home. now you are bad.",
        "x" * 60,
    ]
    expected = Detoxifier(generator(tmp_path / "model", **window), Blocklist(Safety().blocklist)).rewrite(comments)
    found = outcomes(tmp_path / "bundle", comments)
    assert [(item["text"], item["status"]) for item in found] == [(one.text, one.status.value) for one in expected]
    assert len((found[0]["text"] or "").split()) > 10


@pytest.fixture(scope="module")
def advertising_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writes "click here" after whatever it is given."""

    def pair(generator: random.Random) -> tuple[str, str]:
        words = toy.draw_words(generator, most=3)
        return " ".join(words), " ".join([*words[:1], "click", "here"])

    tokenizer = toy.make_tokenizer()
    model = toy.make_model(tokenizer)
    toy.train(model, tokenizer, pair, steps=80)
    return toy.save(model, tokenizer, tmp_path_factory.mktemp("advertising"))


def test_a_phrase_that_a_model_was_trained_to_write_comes_out_only_where_the_comment_holds_it(
    advertising_model: Path, tmp_path: Path
) -> None:
    run(advertising_model, tmp_path / "open", safety={"blocklist": []})
    run(advertising_model, tmp_path / "closed", safety={"blocklist": ["Click here"]})
    holding = [f"{text} click here" for text in SOURCES[:10]]
    freely = outcomes(tmp_path / "open" / "bundle", SOURCES)
    found = outcomes(tmp_path / "closed" / "bundle", [*SOURCES, *holding])
    expected = generator(tmp_path / "closed" / "model", safety={"blocklist": ["Click here"]})
    assert sum(BLOCKLIST.is_in(item["text"]) for item in freely) > 60
    assert not [item for item in found[: len(SOURCES)] if BLOCKLIST.is_in(item["text"] or "")]
    assert [item for item in found[len(SOURCES) :] if BLOCKLIST.is_in(item["text"] or "")]
    assert [item["text"] for item in found] == expected.generate([*SOURCES, *holding])


def test_comments_are_arguments_or_lines_and_every_one_gives_a_line(output: Path) -> None:
    program = [sys.executable, "-I", str(output / "bundle" / "detoxify.py")]
    given = subprocess.run([*program, "go home", "now"], capture_output=True, encoding="utf-8", check=True)
    assert len(given.stdout.splitlines()) == 2
    lines = subprocess.run(program, input="go home\n\nnow", capture_output=True, encoding="utf-8", check=True)
    assert lines.stdout.split("\n")[1] == ""
    assert len(lines.stdout.splitlines()) == 3
    assert lines.stdout.splitlines()[::2] == given.stdout.splitlines()


def test_a_line_that_is_no_utf_8_is_quarantined_and_its_neighbours_are_rewritten(output: Path) -> None:
    program = [sys.executable, "-I", str(output / "bundle" / "detoxify.py"), "--json"]
    done = subprocess.run(program, input=b"go home\ngo \xff home\nnow\n", capture_output=True, check=True)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [item["status"] for item in found] == ["unchanged", "quarantined", "unchanged"]
    assert [item["text"] is None for item in found] == [False, True, False]


def test_the_bundle_is_a_folder_and_a_zip_of_it_and_their_size_and_memory_are_told(
    copying_model: Path, tmp_path: Path
) -> None:
    result = run(copying_model, tmp_path)
    assert result.artifacts == {"model": "model", "bundle": "bundle", "bundle_zip": "bundle.zip"}
    folder = tmp_path / "bundle"
    names = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    scripts = {name for name in names if name.endswith(".py")}
    assert scripts == {"detoxify.py"}
    assert names >= {"tokenizer.json", "settings.json", "requirements.txt", "README.md", "model/model.bin"}
    with zipfile.ZipFile(tmp_path / "bundle.zip") as archive:
        assert {name.removeprefix("bundle/") for name in archive.namelist()} == names
    found = {item.metric: item.value for item in result.summaries}
    assert found["bundle_bytes"] == sum((folder / name).stat().st_size for name in names)
    assert found["bundle_zip_bytes"] == (tmp_path / "bundle.zip").stat().st_size
    assert 20e6 < found["bundle_peak_bytes"] < 400e6


def test_the_script_imports_nothing_but_the_two_packages(output: Path) -> None:
    text = (output / "bundle" / "detoxify.py").read_text(encoding="utf-8")
    assert text == assemble_script()
    imported = {line.split()[1].split(".")[0] for line in text.splitlines() if line.startswith(("import ", "from "))}
    assert imported - set(sys.stdlib_module_names) == {"ctranslate2", "tokenizers"}


def test_no_two_modules_in_the_script_give_one_name_to_two_things() -> None:
    nodes = ast.parse(assemble_script()).body
    names = [node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    names += [
        target.id
        for node in nodes
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    ]
    assert len(names) > 40
    assert sorted(names) == sorted(set(names))


def test_a_bundle_that_does_not_run_is_no_bundle(output: Path, tmp_path: Path) -> None:
    (tmp_path / "detoxify.py").write_text("import torch\n", encoding="utf-8")
    with pytest.raises(
        BundleError, match=r"^the bundle doesn't run by itself: ModuleNotFoundError: import of torch halted"
    ):
        try_bundle(tmp_path, ["go home"], num_threads=1)
    (tmp_path / "detoxify.py").write_text("print('one')\n", encoding="utf-8")
    with pytest.raises(BundleError, match="lines are missing"):
        try_bundle(tmp_path, ["go home", "now"], num_threads=1)


def test_an_export_whose_bundle_fails_leaves_nothing(
    copying_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "assemble_script", lambda: "import torch\n")
    with pytest.raises(BundleError):
        run(copying_model, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.soak
def test_in_an_environment_of_the_two_packages_a_bundle_writes_what_distox_writes(output: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "device", with_pip=True)
    python = tmp_path / "device" / "bin" / "python"
    install: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "-r", output / "bundle" / "requirements.txt"], check=True)
    there = subprocess.run([python, "-c", "import torch"], capture_output=True, check=False)
    assert there.returncode != 0
    done = subprocess.run(
        [python, output / "bundle" / "detoxify.py"],
        input="".join(text + "\n" for text in SOURCES),
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    expected = generator(output / "model").generate(SOURCES)
    assert [is_same_text(*pair) for pair in zip(done.stdout.splitlines(), expected, strict=True)] == [True] * 70
