"""Resident memory of a process, as the kernel tells it."""

from __future__ import annotations

import subprocess
import sys

from jobs.memory import forget_peak, read_memory

MEGABYTE = 1_000_000


def test_the_peak_is_that_of_this_process_whatever_its_parent_has() -> None:
    held = bytearray(b"1") * (300 * MEGABYTE)
    assert read_memory().now > len(held)
    code = "from jobs.memory import read_memory; print(read_memory().peak)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert 1 * MEGABYTE < int(done.stdout) < 200 * MEGABYTE


def test_a_peak_that_is_past_is_forgotten() -> None:
    held = bytearray(b"1") * (300 * MEGABYTE)
    high = read_memory()
    del held
    assert read_memory().peak > high.peak - MEGABYTE
    forget_peak()
    after = read_memory()
    assert after.now <= after.peak < high.peak - 200 * MEGABYTE
