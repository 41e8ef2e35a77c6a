"""Paired measurements, one JSON line last."""
