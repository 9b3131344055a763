"""Configs, presets and sweeps, without torch."""
