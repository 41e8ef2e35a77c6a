"""Tables of an evaluation: only those that were asked for, and only columns that have something to show."""

from __future__ import annotations

import io

from rich.console import Console

from api.cli.scores import DIFFERENCES, WIDTH, score_tables
from jobs.context import Summary

FIGURES = [
    Summary("joint", 0.5, "student", 0.4, 0.6, 100),
    Summary("chrf", 71.26, "student", 70.04, 72.5, 100),
    Summary("speedup", 4.236, "student"),
    Summary("joint_minus_copy", 0.25, "student", 0.2, 0.3, 100),
    Summary("joint_minus_copy_p_value", 0.002, "student", count=100),
]


def printed(titles: tuple[str, ...] | None = None) -> str:
    page = Console(width=WIDTH, file=io.StringIO())
    for table in score_tables(FIGURES, titles=titles):
        page.print(table)
    assert isinstance(page.file, io.StringIO)
    return page.file.getvalue()


def test_tables_hold_what_there_is_with_intervals_below() -> None:
    assert [line.split() for line in printed().splitlines()] == [
        ["quality"],
        ["system", "joint"],
        ["student", "0.500"],
        ["0.400–0.600"],
        ["wording"],
        ["system", "chrF"],
        ["student", "71.3"],
        ["70.0–72.5"],
        ["speed"],
        ["system", "times", "faster"],
        ["student", "4.24"],
        DIFFERENCES.split(),
        ["system", "minus", "difference", "95", "%", "interval", "p"],
        ["student", "copy", "+0.250", "+0.200", "to", "+0.300", "0.002"],
    ]


def test_only_the_tables_that_are_asked_for_are_shown() -> None:
    shown = printed(("quality", DIFFERENCES))
    assert "quality" in shown
    assert DIFFERENCES in shown
    assert "speed" not in shown
    assert "chrF" not in shown


def test_nothing_gives_no_table() -> None:
    assert list(score_tables([])) == []
