"""Benchmarks of eviction policies and of a generation of evolution."""
