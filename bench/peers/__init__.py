"""The ways to load that the benchmark compares."""
