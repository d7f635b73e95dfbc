"""What to do: pure decisions. No clock, no I/O, no randomness that was not handed in."""
