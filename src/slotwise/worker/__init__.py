"""The executor: one process, bound to one slice, that runs one batch at a time.

`executor` holds the rules of execution and the threads, `shelf` the models that are resident, `batches`
the way of tensors from shared memory through a model and back. Choosing what to run is the
controller's, and reading models a runtime's.
"""
