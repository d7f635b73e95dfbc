"""What the benchmarks share: a real server, load for it, what its processes take, and how figures are kept."""
