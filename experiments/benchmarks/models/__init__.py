"""Benchmarks of layers and models in training."""
