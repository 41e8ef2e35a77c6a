"""Makes a bundle of an exported model: a folder, and a ZIP of it, that need no distox, no torch and no Transformers.

The script is ``jobs/bundle/script.py`` with the modules of ours that it imports written into it, so that comments are
cut and joined, and phrases found, exactly as in ``detoxify``. A bundle was run, in a process in which torch can't be
imported, before it is handed over.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from configs.schema.kinds import Export
from jobs import blocklist, text
from jobs.blocklist import Blocklist
from jobs.bundle import script
from jobs.conversion import WEIGHTS
from jobs.model_record import RECORD, InputForm
from jobs.models import load_tokenizer

SCRIPT = "detoxify.py"
ZIP_SUFFIX = ".zip"
ABSENT = ("torch", "transformers", "distox", "jobs", "configs", "pydantic")
"""What a device has not; importing it fails where a bundle is tried."""
PACKAGES = ("ctranslate2", "tokenizers")
TRY_SECONDS = 600
NUM_PROBES = 64
_OWN_IMPORT = re.compile(r"^from jobs\.(\w+) import .*\n", re.MULTILINE)
_MODULES = {"blocklist": blocklist, "text": text}
_MODEL_FILES = (WEIGHTS, "config.json", "shared_vocabulary.json", RECORD)
_RUNNER = """
import runpy, sys
sys.modules.update(dict.fromkeys({absent!r}))
sys.argv = [{script!r}, "--threads", "{num_threads}"]
try:
    runpy.run_path({script!r}, run_name="__main__")
except SystemExit as end:
    if end.code:
        raise
with open("/proc/self/status") as status:
    sys.stderr.write("".join(line for line in status if line.startswith("VmHWM:")))
"""


class BundleError(RuntimeError):
    """A bundle that doesn't run by itself; the message has the last line of what it said."""


@dataclass(frozen=True)
class Bundle:
    """A folder that was tried."""

    folder: Path
    num_bytes: int
    peak_bytes: int
    """Most memory that the process which runs it took, the interpreter and both packages included."""


def make_bundle(spec: Export, form: InputForm, exported: Path, folder: Path, *, num_threads: int) -> Bundle:
    """Write the bundle of the model in ``exported`` into the new ``folder``, and run it once.

    Raises:
        BundleError: it doesn't run.
    """
    (folder / "model").mkdir(parents=True)
    for name in _MODEL_FILES:
        shutil.copyfile(exported / name, folder / "model" / name)
    for name in ("tokenizer.json", "README.md"):
        shutil.copyfile(exported / name, folder / name)
    settings = json.dumps(_settings(spec, form, exported), indent=2, ensure_ascii=False)
    (folder / script.SETTINGS).write_text(settings + "\n", encoding="utf-8")
    (folder / SCRIPT).write_text(assemble_script(), encoding="utf-8")
    requirements = "".join(f"{package}=={version(package)}\n" for package in PACKAGES)
    (folder / "requirements.txt").write_text(requirements, encoding="utf-8")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    probes = [" ".join(["a word"] * (1 + number % 8)) for number in range(NUM_PROBES)]
    return Bundle(folder, size, try_bundle(folder, probes, num_threads=num_threads)[1])


def assemble_script() -> str:
    """The script as one file: each module of ours stands where it was imported."""
    return _OWN_IMPORT.sub(
        lambda found: _body(inspect.getsource(_MODULES[found[1]])).rstrip() + "\n\n\n", inspect.getsource(script)
    )


def _body(source: str) -> str:
    """A module without its docstring and its imports from the future, which stand at the top of a file only."""
    nodes = ast.parse(source).body
    first = next(
        node
        for node in nodes
        if not isinstance(node, ast.Expr) and not (isinstance(node, ast.ImportFrom) and node.module == "__future__")
    )
    return "".join(source.splitlines(keepends=True)[first.lineno - 1 :])


def try_bundle(folder: Path, comments: list[str], *, num_threads: int) -> tuple[list[str], int]:
    """Run the bundle as a device would: its lines for ``comments``, which hold no line break, and its peak memory.

    Raises:
        BundleError: it failed, or gave another number of lines.
    """
    program = _RUNNER.format(absent=ABSENT, script=str(folder / SCRIPT), num_threads=num_threads)
    done = subprocess.run(
        [sys.executable, "-I", "-c", program],
        input="".join(comment + "\n" for comment in comments),
        capture_output=True,
        encoding="utf-8",
        timeout=TRY_SECONDS,
        check=False,
    )
    lines = done.stdout.split("\n")[:-1]
    if done.returncode != 0 or len(lines) != len(comments):
        said = done.stderr.strip().splitlines()[-1:] if done.returncode != 0 else []
        raise BundleError(f"the bundle doesn't run by itself: {said[0] if said else 'lines are missing'}")
    peak = re.search(r"VmHWM:\s+(\d+) kB", done.stderr)
    return lines, int(peak[1]) * 1024 if peak else 0


def zip_bundle(folder: Path) -> Path:
    """The ZIP beside ``folder``, which holds the folder itself."""
    archive = folder.with_suffix(ZIP_SUFFIX)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                file.write(path, path.relative_to(folder.parent))
    return archive


def _settings(spec: Export, form: InputForm, exported: Path) -> dict[str, Any]:
    """All that the script is told: how text is given, how it is decoded, and what may not come out."""
    tokenizer = load_tokenizer(str(exported))
    to_tokens = tokenizer.convert_ids_to_tokens
    forms_of = {
        phrase: [to_tokens(list(ids)) for ids in sorted(forms)]
        for phrase, forms in Blocklist(spec.safety.blocklist).token_forms(tokenizer).items()
    }
    return {
        "prefix": form.prefix,
        "max_length": form.max_length,
        "segments": spec.segments,
        "decoding": {
            "beam_size": spec.decoding.num_beams,
            "patience": spec.decoding.patience,
            "length_penalty": spec.decoding.length_penalty,
            "no_repeat_ngram_size": spec.decoding.no_repeat_ngram_size,
            "min_decoding_length": spec.decoding.min_new_tokens,
            "max_decoding_length": spec.decoding.max_new_tokens,
        },
        "blocklist": forms_of,
        "special_tokens": tokenizer.all_special_tokens,
        "end_token": tokenizer.eos_token,
        "pad_token": tokenizer.pad_token,
    }
