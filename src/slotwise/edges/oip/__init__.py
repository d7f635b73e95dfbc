"""The Open Inference Protocol, version 2: its words (pure), and the doors that speak it."""
