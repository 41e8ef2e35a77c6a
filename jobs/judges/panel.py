"""The judges of one evaluation, hub and embedded behind one interface, and what they say of systems' outputs.

Texts and pairs that several systems share are judged once; the values of a row depend on that row alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from configs.schema.inference import Judges
from jobs.context import JobStopped
from jobs.data import Pair
from jobs.judges.content import ContentJudge, load_content
from jobs.judges.fluency import FluencyJudge, Likelihood, load_fluency
from jobs.judges.loading import EMBEDDED, JudgeError, identity_of
from jobs.judges.style import StyleJudge, load_style
from jobs.metrics import Values, joint, relative_fluency

ROWS_IN_BLOCK = 256
"""Rows judged together: enough to sort texts by length, few enough to keep their embeddings in memory."""


@dataclass(frozen=True)
class Panel:
    """Who scores."""

    style: StyleJudge
    content: ContentJudge
    fluency: FluencyJudge


@dataclass(frozen=True)
class Scores:
    """The per-row values of one system, each of shape (rows,)."""

    toxicity: Values
    content_source: Values
    content_reference: Values
    """The highest over the row's references; against the source where there is none."""
    fluency: Values
    """f = min(1, PPL(source) / PPL(output))."""
    nll: Values
    """Negative log-likelihood of the output, summed over its tokens."""
    num_tokens: Values
    """Tokens of the output under the fluency judge."""

    @property
    def likelihood(self) -> Likelihood:
        """Of the outputs."""
        return Likelihood(self.nll, self.num_tokens)

    @property
    def joint(self) -> Values:
        """Row by row: style × content against the reference × f."""
        return joint(1 - self.toxicity, self.content_reference, self.fluency)

    @property
    def means(self) -> dict[str, Values]:
        """Metric → the values whose mean is reported."""
        return {
            "style": 1 - self.toxicity,
            "style_share": (self.toxicity < 0.5).astype(np.float64),
            "content_source": self.content_source,
            "content_reference": self.content_reference,
            "fluency": self.fluency,
            "inverse_perplexity": 1 / self.likelihood.perplexity,
            "joint": self.joint,
        }


def load_panel(judges: Judges, train: Sequence[Pair]) -> Panel:
    """Load the judges that a spec names; ``train`` serves a content judge that has no published baseline.

    Raises:
        JudgeError: one can't be used, or the gate would also score.
    """
    if is_gate_also_judge(judges) and not judges.allow_same_judge:
        raise JudgeError(
            f"judges.gate = {judges.gate!r} is the model of judges.style = {judges.style!r}; name another one of the "
            "two, or set judges.allow_same_judge: true and every table will say so"
        )
    texts = [text for pair in train for text in (pair.source, *pair.targets)]
    return Panel(
        load_style(judges.style),
        load_content(judges.content, texts),
        load_fluency(judges.fluency, judges.trained),
    )


def is_gate_also_judge(judges: Judges) -> bool:
    """Whether the gate and the style judge are one model, by name or, of folders, by weights.

    The embedded gate is fitted on the train split and the embedded style judge is not: two models with one name.
    """
    if judges.gate is None or judges.gate == EMBEDDED:
        return False
    if judges.gate == judges.style:
        return True
    both = [Path(name).expanduser() for name in (judges.gate, judges.style)]
    return all(path.is_dir() for path in both) and identity_of(judges.gate) == identity_of(judges.style)


def judge(
    panel: Panel,
    test: Sequence[Pair],
    outputs: Mapping[str, Sequence[str]],
    *,
    should_stop: Callable[[], bool],
    done: Callable[[int], None],
) -> dict[str, Scores]:
    """Score each system's output for each test row. A blank output has content 0, f 0 and so joint 0.

    Args:
        panel: the judges.
        test: sources and references.
        outputs: system → one text for each row of ``test``.
        should_stop: is asked between blocks of rows.
        done: is told the number of rows that are through.

    Raises:
        JobStopped: ``should_stop`` said so.
    """
    blocks: dict[str, list[Scores]] = {name: [] for name in outputs}
    for start in range(0, len(test), ROWS_IN_BLOCK):
        if should_stop():
            raise JobStopped
        rows = slice(start, start + ROWS_IN_BLOCK)
        for name, scores in _judge_block(panel, test[rows], {name: texts[rows] for name, texts in outputs.items()}):
            blocks[name].append(scores)
        done(min(start + ROWS_IN_BLOCK, len(test)))
    return {name: _joined(parts) for name, parts in blocks.items()}


def _judge_block(
    panel: Panel, pairs: Sequence[Pair], outputs: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, Scores]]:
    sources = [pair.source for pair in pairs]
    every = [text for texts in outputs.values() for text in texts]
    texts = list(dict.fromkeys([*sources, *every]))
    place = {text: index for index, text in enumerate(texts)}
    toxicity, likelihood = panel.style.toxicity(texts), panel.fluency.likelihood(texts)
    source_perplexity = likelihood.take([place[text] for text in sources]).perplexity
    content = _content(panel.content, pairs, outputs)
    for name, written in outputs.items():
        chosen = [place[text] for text in written]
        own = likelihood.take(chosen)
        yield (
            name,
            Scores(
                toxicity[chosen],
                *content[name],
                relative_fluency(source_perplexity, own.perplexity),
                own.total,
                own.num_tokens,
            ),
        )


def _content(
    judge: ContentJudge, pairs: Sequence[Pair], outputs: Mapping[str, Sequence[str]]
) -> dict[str, tuple[Values, Values]]:
    """Against the source and against the best reference, all systems in one call so that nothing is embedded twice.

    Where there is no reference, the source stands for it.
    """
    asked = [
        (text, [pair.source, *(pair.targets or [pair.source])])
        for texts in outputs.values()
        for text, pair in zip(texts, pairs, strict=True)
    ]
    flat = judge.score(
        [text for text, others in asked for _ in others], [other for _, others in asked for other in others]
    )
    starts = np.cumsum([0, *(len(others) for _, others in asked[:-1])])
    against_source = flat[starts]
    flat[starts] = -np.inf
    against_reference = np.maximum.reduceat(flat, starts)
    size = len(pairs)
    return {
        name: (against_source[index * size : (index + 1) * size], against_reference[index * size : (index + 1) * size])
        for index, name in enumerate(outputs)
    }


def _joined(parts: Sequence[Scores]) -> Scores:
    return Scores(*(np.concatenate([getattr(part, item.name) for part in parts]) for item in fields(Scores)))
