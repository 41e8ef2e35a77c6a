"""Tests: a folder for each room, plus faults, end to end and benchmarks."""
