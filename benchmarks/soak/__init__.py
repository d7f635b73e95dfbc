"""A long run of the whole server under mixed load and faults: what it answers, and what it takes over time."""
