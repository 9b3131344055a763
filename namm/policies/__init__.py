"""Eviction policies: NAMMs, and the published rules that they are compared with."""
