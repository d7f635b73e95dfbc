"""Who asks, and when: workloads as values, one vocabulary for live load and for simulation."""
