"""Kills, cuts and full disks, for real."""
