"""Benchmarks of single ops: correctness first, then time against the measured peaks."""
