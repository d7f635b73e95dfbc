"""Shared memory for tensors: where things lie (`layout`, pure) and the memory itself (`files`)."""
