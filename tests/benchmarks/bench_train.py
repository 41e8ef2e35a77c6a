"""Distillation of T5-base into T5-small, ours against the recipe's loop written plainly: ``make bench-train``.

Random weights of the published shapes (embedding 32,128), a tokenizer of 8,000 pieces trained on the rows, 8 rows in an
optimizer step, dropout 0 on both sides. The plain loop pads both models to 96, projects every position and keeps full
softmaxes; its loss is the corrected one, so that both sides compute the same gradient, which is asserted first. The two
sides take turns, each in a process of its own, whose peak memory is measured too. The last line is JSON:
``live_ratio`` and ``cached_ratio`` (rows/s against the plain loop: teacher run live, and over three epochs with its
states kept, their recording included), ``memory_ratio`` and ``cached_memory_ratio`` (peak memory of the process, live
and with kept states, against plain), and ``peak_share`` (useful FLOPs of the live run against the machine's measured
matmul peak).
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from configs.schema.data import Dataset
from configs.schema.models import Layers, Shape
from configs.schema.training import DistillationLoss, TeacherCache, Training
from jobs.collation import EncodedPairs, TokenRow, collate, encode_pairs
from jobs.context import JobContext
from jobs.data import load_pairs
from jobs.losses import IGNORED_LABEL, Distillation
from jobs.material import Material
from jobs.models import LoadedModel, load_tokenizer, make_model
from jobs.student import Student
from jobs.teacher import Teacher
from jobs.tokenization import train_tokenizer
from jobs.training import make_trainer

PARADETOX = Path(__file__).parents[3] / "shared" / "data" / "paradetox.tsv"
VOCABULARY = 32128
BASE = Shape(
    hidden_size=768, layers=Layers(encoder=12, decoder=12), ffn_size=3072, attention_heads=12, vocab_size=VOCABULARY
)
SMALL = Shape(
    hidden_size=512, layers=Layers(encoder=6, decoder=6), ffn_size=2048, attention_heads=8, vocab_size=VOCABULARY
)
PREFIX, MAX_LENGTH, ROWS_PER_STEP = "detoxify: ", 96, 8
TEMPERATURE, KD_WEIGHT = 2.0, 0.7
LOSS = DistillationLoss(temperature=TEMPERATURE, kd_weight=KD_WEIGHT)
PLAIN_STEPS, LIVE_STEPS, CACHED_EPOCHS = 3, 16, 3.0
ROUNDS = 2
PEAK_SIZE, PEAK_SECONDS = 2048, 2.0


def material(folder: Path) -> Material:
    """Both models with random weights, and the rows of three epochs."""
    tokenizer = load_tokenizer(str(folder / "tokenizer"))
    torch.manual_seed(1)
    teacher, student = (LoadedModel(make_model(shape, tokenizer), tokenizer) for shape in (BASE, SMALL))
    pairs = load_pairs(_dataset()).train[: ROWS_PER_STEP * LIVE_STEPS]
    rows = encode_pairs(
        [type(pair)(pair.source, pair.targets[:1]) for pair in pairs],
        tokenizer,
        prefix=PREFIX,
        max_length=MAX_LENGTH,
        teacher_tokenizer=tokenizer,
    )
    return Material(student, teacher, rows, EncodedPairs(()), PREFIX)


def plain_loss(made: Material, rows: list[TokenRow]) -> torch.Tensor:
    """The recipe's loss with its scale corrected: padded to 96, full softmaxes of both models."""
    source = torch.zeros(len(rows), MAX_LENGTH, dtype=torch.long)
    labels = torch.full((len(rows), MAX_LENGTH), IGNORED_LABEL)
    for index, row in enumerate(rows):
        source[index, : len(row.input_ids)] = torch.tensor(row.input_ids)
        labels[index, : len(row.labels)] = torch.tensor(row.labels)
    mask = (source != 0).long()
    assert made.teacher is not None
    out = made.student.model(input_ids=source, attention_mask=mask, labels=labels)
    with torch.no_grad():
        theirs = made.teacher.model(input_ids=source, attention_mask=mask, labels=labels).logits
    log_q = torch.log_softmax(out.logits / TEMPERATURE, dim=-1)
    p = torch.softmax(theirs / TEMPERATURE, dim=-1)
    kl = torch.nn.functional.kl_div(log_q, p, reduction="none").sum(dim=-1)
    kept = labels != IGNORED_LABEL
    loss: torch.Tensor = out.loss + KD_WEIGHT * TEMPERATURE**2 * (kl * kept).sum() / kept.sum()
    return loss


def run_plain(made: Material) -> float:
    """Rows per second of the plain loop."""
    _no_dropout(made)
    optimizer = torch.optim.AdamW(made.student.model.parameters(), lr=2e-4)
    rows = list(made.train.student)
    began = 0.0
    for step in range(PLAIN_STEPS + 1):
        if step == 1:  # the first one allocates
            began = time.perf_counter()
        part = rows[step * ROWS_PER_STEP : (step + 1) * ROWS_PER_STEP]
        torch.autograd.backward(plain_loss(made, part))
        torch.nn.utils.clip_grad_norm_(made.student.model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return PLAIN_STEPS * ROWS_PER_STEP / (time.perf_counter() - began)


def run_ours(made: Material, folder: Path) -> float:
    """Rows per second of the trainer with the teacher run live."""
    times: list[float] = []
    context = JobContext(folder, lambda figures, step: times.append(time.perf_counter()), lambda: False)
    make_trainer(made, _training(epochs=1.0), context, loss=LOSS).train()
    # The first step allocates, as that of the plain loop does.
    return (len(times) - 1) * ROWS_PER_STEP / (times[-1] - times[0])


def run_cached(made: Material, folder: Path) -> float:
    """Rows per second over three epochs, the recording of the teacher's states before them included."""
    began = time.perf_counter()
    context = JobContext(folder, lambda figures, step: None, lambda: False)
    trainer = make_trainer(made, _training(epochs=CACHED_EPOCHS), context, loss=LOSS, teacher_cache=TeacherCache())
    num_rows = len(made.train)
    # Nobody else holds the teacher any more, as in a run.
    object.__setattr__(made, "teacher", None)
    trainer.train()
    return CACHED_EPOCHS * num_rows / (time.perf_counter() - began)


def _training(*, epochs: float) -> Training:
    return Training(
        batch_size=ROWS_PER_STEP,
        grad_accumulation=1,
        epochs=epochs,
        dropout=0.0,
        log_steps=1,
        precision="fp32",
        checkpoint_steps=None,
    )


def check_gradients(made: Material) -> float:
    """The largest relative difference of a weight's gradient between the two sides, on one step's rows."""
    _no_dropout(made)
    model = made.student.model
    torch.autograd.backward(plain_loss(made, list(made.train.student[:ROWS_PER_STEP])))
    plain = {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad()
    assert made.teacher is not None
    batch = collate(range(ROWS_PER_STEP), made.train)
    student = Student(model, distillation=Distillation(TEMPERATURE, KD_WEIGHT))
    teacher = Teacher(made.teacher.model).project(batch)
    sums = student(batch["input_ids_s"], batch["attention_mask_s"], batch["labels_s"], teacher=teacher)
    torch.autograd.backward(sums.loss / sums.num_positions)
    differences = []
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        differences.append(float((parameter.grad - plain[name]).norm() / plain[name].norm()))
    return max(differences)


def useful_flops_per_row(made: Material) -> float:
    """2 x multiply-adds over unpadded tokens, the vocabulary only at labelled positions, the student three times."""
    rows = made.train.student
    source = statistics.fmean(len(row.input_ids) for row in rows)
    target = statistics.fmean(len(row.labels) for row in rows)
    return 3 * _forward_flops(SMALL, source, target) + _forward_flops(BASE, source, target)


def _forward_flops(shape: Shape, source: float, target: float) -> float:
    width, ffn = shape.hidden_size, shape.ffn_size
    encoder = shape.layers.encoder * source * (4 * width**2 + 2 * width * ffn + 2 * width * source)
    own = 4 * width**2 + 2 * width * ffn + 2 * width * target
    cross = 2 * width**2 + 2 * width * source
    decoder = shape.layers.decoder * (target * (own + cross) + source * 2 * width**2)
    return 2.0 * (encoder + decoder + target * width * VOCABULARY)


def measure_peak() -> float:
    """FLOP/s of a square fp32 matmul, the best of some seconds."""
    one, two = torch.randn(PEAK_SIZE, PEAK_SIZE), torch.randn(PEAK_SIZE, PEAK_SIZE)
    best, until = 0.0, time.perf_counter() + PEAK_SECONDS
    while time.perf_counter() < until:
        began = time.perf_counter()
        one @ two
        best = max(best, 2 * PEAK_SIZE**3 / (time.perf_counter() - began))
    return best


def _no_dropout(made: Material) -> None:
    assert made.teacher is not None
    made.student.model.train(False)
    made.teacher.model.train(False)


def _dataset() -> Dataset:
    return Dataset(name=str(PARADETOX), source_column="toxic", target_column=("neutral1",), max_length=MAX_LENGTH)


SIDES: dict[str, Callable[[Material, Path], float]] = {
    "plain": lambda made, folder: run_plain(made),
    "live": run_ours,
    "cached": run_cached,
    "gradients": lambda made, folder: check_gradients(made),
    "flops": lambda made, folder: useful_flops_per_row(made),
    "peak": lambda made, folder: measure_peak(),
}


def run_side(side: str, folder: Path, num_threads: int) -> None:
    """What a child process does: one side, its figure and its peak memory as JSON."""
    torch.set_num_threads(num_threads)
    with tempfile.TemporaryDirectory() as output:
        value = SIDES[side](material(folder), Path(output))
    print(json.dumps({"value": value, "bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


def main() -> None:
    """Measure all, print a line for each part, and the result as JSON last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", choices=sorted(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if options.side is not None:
        run_side(options.side, options.folder, options.threads)
        return
    with tempfile.TemporaryDirectory() as folder:
        train_tokenizer(_texts(), vocab_size=8000, folder=Path(folder) / "tokenizer")

        def measure(side: str) -> dict[str, Any]:
            command = [sys.executable, "-m", "tests.benchmarks.bench_train", "--side", side, "--folder", folder]
            command += ["--threads", str(options.threads)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
            print(f"{side}: {found['value']:.4g}, {found['bytes'] / 1e9:.2f} GB", flush=True)
            return found

        difference = measure("gradients")["value"]
        assert difference < 1e-4, f"the two sides' gradients differ by {difference}"
        rounds = [{side: measure(side) for side in ("plain", "live", "cached")} for _ in range(ROUNDS)]
        peak, flops = measure("peak")["value"], measure("flops")["value"]

    def ratio(one: str, other: str, key: str) -> float:
        return statistics.median([float(item[one][key]) / float(item[other][key]) for item in rounds])

    live = statistics.median(item["live"]["value"] for item in rounds)
    result = {
        "live_ratio": ratio("live", "plain", "value"),
        "cached_ratio": ratio("cached", "plain", "value"),
        "memory_ratio": ratio("live", "plain", "bytes"),
        "cached_memory_ratio": ratio("cached", "plain", "bytes"),
        "peak_share": live * flops / peak,
    }
    print(json.dumps({key: round(value, 3) for key, value in result.items()}))


def _texts() -> list[str]:
    splits = load_pairs(_dataset())
    return [text for pair in splits.train for text in (PREFIX + pair.source, *pair.targets)]


if __name__ == "__main__":
    main()
