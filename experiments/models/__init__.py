"""Models that are trained: built, loaded, assembled, described."""
