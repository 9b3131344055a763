"""Configs, presets, data sets, and the runs built of them: training, evaluation, benchmarks."""
