"""Pretrained and synthetic models whose cache is evicted or that get a memory: found, converted, loaded."""
