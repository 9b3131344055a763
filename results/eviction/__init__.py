"""The page and picture of one eviction."""
