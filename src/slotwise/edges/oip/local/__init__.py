"""Inference for clients on the same machine: the `door`, and a client at it (`guest`)."""
