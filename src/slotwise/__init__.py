"""Slotwise: an inference server that hands out slots of time and answers every request by its deadline."""

__version__ = "0.1.0"
