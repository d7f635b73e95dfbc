"""Nanoseconds in the units that people use."""

US = 1_000
MS = 1_000_000
S = 1_000_000_000
