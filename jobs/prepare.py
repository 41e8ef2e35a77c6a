"""The job ``prepare``: data, split, and on request a tokenizer, the embedded judges and a comment dump.

Everything is fitted on the train split alone, with what ``dataset.extra`` adds to it, and the same spec gives the same
files.
"""

from __future__ import annotations

from typing import Any

from configs.schema.data import SAMPLE
from configs.schema.kinds import Prepare
from jobs.context import JobContext, JobResult, JobStopped, Summary
from jobs.data import PairSplits, load_pairs, split_rows, write_pairs
from jobs.extra import join_extra


def run(spec: Prepare, context: JobContext) -> JobResult:
    """Prepare what the spec asks for.

    Raises:
        DataError: the dataset can't be used.
        JobStopped: ``should_stop`` said so between two parts.
    """
    splits, artifacts = _load(spec, context)
    dataset = spec.dataset.model_dump(mode="json")
    kept = ("prefix", "source_column", "target_column", "split", "validation", "limit")
    about: dict[str, Any] = {"origin": spec.dataset.name, **{name: dataset[name] for name in kept}}
    write_pairs(splits, context.output / "dataset", about=about)
    counts = {f"num_{name}": len(getattr(splits, name)) for name in ("train", "validation", "test")}
    summaries = [Summary(metric, value) for metric, value in {**counts, **splits.extra}.items()]
    context.report(counts, 0)
    if spec.tokenizer is not None:
        from jobs.tokenization import train_tokenizer

        _check_stop(context)
        folder = context.output / "tokenizer"
        # The prefix is read by the model as often as any word: it is part of the texts.
        texts = (text for pair in splits.train for text in (spec.dataset.prefix + pair.source, *pair.targets))
        num_pieces = train_tokenizer(texts, vocab_size=spec.tokenizer.vocab_size, folder=folder)
        artifacts["tokenizer"] = "tokenizer"
        summaries.append(Summary("vocab_size", num_pieces))
    if spec.judges is not None:
        from jobs.judge_training import fit_judges

        _check_stop(context)
        folder = context.output / "judges"
        fit_judges(
            splits,
            spec.judges,
            folder,
            seed=spec.dataset.split.seed,
            num_threads=context.num_threads,
            report=context.report,
            should_stop=context.should_stop,
        )
        artifacts["judges"] = "judges"
    return JobResult({"dataset": "dataset", **artifacts}, tuple(summaries))


def _load(spec: Prepare, context: JobContext) -> tuple[PairSplits, dict[str, str]]:
    """The pairs; of the sample also its comment dump."""
    if spec.dataset.name != SAMPLE:
        return load_pairs(spec.dataset), {}
    from configs.schema.data import SampleSize
    from jobs.sample import sample_rows, write_dump

    size = spec.sample or SampleSize()
    splits = join_extra(split_rows(sample_rows(size), spec.dataset, origin="the sample"), spec.dataset)
    (context.output / "dump").mkdir(parents=True, exist_ok=True)
    file = write_dump(size, context.output / "dump")
    return splits, {"dump": str(file.relative_to(context.output))}


def _check_stop(context: JobContext) -> None:
    if context.should_stop():
        raise JobStopped
