"""Executors behind the engine's `Fleet` port: `processes` forks them on this machine.

`ring` and `messages` are what the two sides share; the executor imports those two and nothing else here.
"""
