"""Models chained under one deadline: a pipeline's request becomes requests of its steps, and their replies one."""
