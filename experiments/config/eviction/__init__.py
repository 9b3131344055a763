"""The configs of evolutions and evaluations of eviction policies."""
