"""`memx evict`, and tasks answered by a model with an evicting cache."""
