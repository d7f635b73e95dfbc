"""Tests that run the whole product: real processes, real sockets, real clients."""
