"""Optimizers, learning-rate schedule, and the choice of weights that train."""
