"""Tests: `unit` mirrors the pure parts, `sim` runs whole systems in virtual time, `contracts` holds one suite
per port, `edges` uses real sockets, memory and models, and `repo` reads the repository itself.
"""
