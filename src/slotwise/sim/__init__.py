"""Pretend effects: a fleet in virtual time, faults and checks."""
