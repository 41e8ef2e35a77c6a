"""The figure of an evaluation: joint with its interval against speed, a marker for each model, lines for the controls.

Drawn without a display. Colours are those of Okabe and Ito, which colour-blind readers tell apart; each model has a
shape of its own too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import log10
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.context import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from jobs.score_summaries import Evaluation

NAME = "figure"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
SHAPES = ("o", "s", "^", "D", "v", "P", "X", "<")
GREY = "#5a5a5a"
LABEL_GAP = 0.052
"""Least distance of two labels at the margin, as a share of the axis: a line of text."""
AREAS = (60.0, 260.0)
"""Of the markers of the smallest and the largest model, in square points."""
SPAN = 4.0
"""The axis of speed shows at least this factor, so that a few per cent don't look like much."""


def draw_figure(evaluation: Evaluation, summaries: Iterable[Summary], folder: Path) -> None:
    """Write ``figure.png`` and ``figure.svg``; at least one model must have been timed."""
    import matplotlib
    from matplotlib.figure import Figure

    values = {(item.system, item.metric): item for item in summaries}
    # The same figures give the same file, and text stays text.
    with matplotlib.rc_context({"svg.hashsalt": "distox", "svg.fonttype": "none", "font.size": 10}):
        figure = Figure(figsize=(8, 5.6), layout="constrained")
        axes = figure.add_subplot()
        _draw_models(axes, evaluation, values)
        _draw_lines(axes, [name for name in evaluation.scores if name not in evaluation.speed], values)
        _label(axes, evaluation)
        num_columns = 2 if len(evaluation.speed) > 1 else 1
        figure.legend(loc="outside lower center", ncols=num_columns, frameon=False)
        figure.savefig(folder / f"{NAME}.png", dpi=150)
        figure.savefig(folder / f"{NAME}.svg", metadata={"Date": None})


def spread(places: Sequence[float], gap: float) -> list[float]:
    """The same places in the same order, moved as little as may be so that neighbours are ``gap`` apart.

    Places that would be too near share a block around their mean.
    """
    blocks: list[list[int]] = []
    order = sorted(range(len(places)), key=lambda index: places[index])

    def span(block: Sequence[int]) -> tuple[float, float]:
        middle = sum(places[index] for index in block) / len(block)
        return middle - gap * (len(block) - 1) / 2, middle + gap * (len(block) - 1) / 2

    for index in order:
        blocks.append([index])
        while len(blocks) > 1 and span(blocks[-2])[1] + gap > span(blocks[-1])[0]:
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    moved = list(places)
    for block in blocks:
        for number, index in enumerate(block):
            moved[index] = span(block)[0] + gap * number
    return moved


def _draw_models(axes: Axes, evaluation: Evaluation, values: dict[tuple[str, str], Summary]) -> None:
    """A marker with both ranges for each model that was timed; the ranges show through."""
    from matplotlib.colors import to_rgba

    sizes = {name: evaluation.outputs[name].parameters for name in evaluation.speed}
    areas = _areas(sizes)
    for number, (name, speed) in enumerate(evaluation.speed.items()):
        colour, shape = COLOURS[number % len(COLOURS)], SHAPES[number % len(SHAPES)]
        joint, x = values[name, "joint"], speed.rows_per_second
        low, high = (joint.value if end is None else end for end in (joint.low, joint.high))
        axes.errorbar(
            x,
            joint.value,
            xerr=[[x - min(speed.rates)], [max(speed.rates) - x]],
            # The mean of equal values is a rounding away from the ends of its interval.
            yerr=[[max(0.0, joint.value - low)], [max(0.0, high - joint.value)]],
            color=colour,
            capsize=3,
            elinewidth=1.4,
            zorder=20 + number,
        )
        size = sizes[name]
        told = f"{name} ({_count(size)} parameters)" if size else name
        axes.scatter(
            [x],
            [joint.value],
            s=areas[name],
            facecolor=to_rgba(colour, 0.35),
            edgecolor=colour,
            linewidth=1.4,
            marker=shape,
            label=told,
            zorder=3 + number,
        )


def _draw_lines(axes: Axes, names: Sequence[str], values: dict[tuple[str, str], Summary]) -> None:
    """What has no speed, as lines over the whole width with their names at the right margin."""
    joints = [values[name, "joint"] for name in names]
    low = min([0.0, axes.get_ylim()[0]])
    high = max([*(item.value for item in joints), axes.get_ylim()[1]])
    # Markers of models that are near 0 are seen whole.
    axes.set_ylim(low - 0.04 * (high - low), high + 0.06 * (high - low))
    bottom, top = axes.get_ylim()
    at = spread([(item.value - bottom) / (top - bottom) for item in joints], LABEL_GAP)
    for name, item, place in zip(names, joints, at, strict=True):
        axes.axhline(item.value, color=GREY, linestyle=(0, (5, 4)), linewidth=1, zorder=1)
        if item.low is not None and item.high is not None:
            axes.axhspan(item.low, item.high, color=GREY, alpha=0.12, linewidth=0, zorder=0)
        axes.annotate(
            name,
            xy=(1.0, (item.value - bottom) / (top - bottom)),
            xytext=(1.03, place),
            xycoords="axes fraction",
            textcoords="axes fraction",
            color=GREY,
            va="center",
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 0},
        )


def _label(axes: Axes, evaluation: Evaluation) -> None:
    """Axes, title and what the whiskers mean."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    rates = [rate for speed in evaluation.speed.values() for rate in speed.rates]
    low, high = min(rates) / 1.3, max(rates) * 1.3
    margin = max(1.0, (SPAN * low / high) ** 0.5)
    axes.set_xscale("log")
    axes.set_xlim(low / margin, high * margin)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 3.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    batch_size = evaluation.spec.engine.batch_size
    axes.set_xlabel(f"rows per second in batches of {batch_size} (whiskers: range of the rounds)")
    axes.set_ylabel("joint: style × content × fluency (95 % interval)")
    judges = evaluation.panel
    axes.set_title(
        f"{len(evaluation.test)} test rows; judges: {judges.style.name},\n{judges.content.name}, {judges.fluency.name}",
        fontsize=9,
        color=GREY,
        loc="left",
    )
    axes.grid(visible=True, color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _areas(sizes: dict[str, int | None]) -> dict[str, float]:
    """Of the markers, by the logarithm of the number of parameters; the middle where all are alike or unknown."""
    known = [log10(size) for size in sizes.values() if size]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)
    smallest, largest = AREAS
    found = {}
    for name, size in sizes.items():
        share = (log10(size) - low) / (high - low) if size and high > low else 0.5
        found[name] = smallest + share * (largest - smallest)
    return found


def _count(number: int) -> str:
    return f"{number / 1e6:,.1f} M" if number >= 1e6 else f"{number / 1e3:,.0f} k"
