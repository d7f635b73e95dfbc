"""Models on disk: what is there, what its owner wants of it, and keeping both in step with the engine."""
