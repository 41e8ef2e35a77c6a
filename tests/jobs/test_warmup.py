"""Copy batches: what is copied, and in which proportion."""

from __future__ import annotations

from jobs.warmup import CopyTask

PREFIX_IDS = (90, 91)
END = 1
SENTENCES = ((10, 11, 12, END), (20, END))


def make_task() -> CopyTask:
    return CopyTask(SENTENCES, prefix_ids=PREFIX_IDS, token_ids=range(30, 60), end_id=END)


def test_every_row_asks_for_its_own_source_behind_the_prefix() -> None:
    for step in range(6):
        for row in make_task().rows(step, 8, seed=0):
            assert row.input_ids == PREFIX_IDS + row.labels
            assert row.labels[-1] == END


def test_two_batches_of_random_tokens_go_with_one_of_sentences() -> None:
    real = [all(row.labels in SENTENCES for row in make_task().rows(step, 8, seed=0)) for step in range(9)]
    assert real == [False, False, True] * 3


def test_random_rows_have_ordinary_tokens_and_the_sentences_lengths() -> None:
    rows = make_task().rows(0, 64, seed=0)
    assert {token for row in rows for token in row.labels[:-1]} <= set(range(30, 60))
    assert {len(row.labels) for row in rows} == {2, 4}


def test_a_step_is_the_same_each_time_and_differs_from_the_next() -> None:
    task = make_task()
    assert task.rows(0, 8, seed=0) == task.rows(0, 8, seed=0)
    assert task.rows(0, 8, seed=0) != task.rows(1, 8, seed=0)
    assert task.rows(0, 8, seed=0) != task.rows(0, 8, seed=1)
