"""Processes, signals, devices, memory allocation and hub settings."""
