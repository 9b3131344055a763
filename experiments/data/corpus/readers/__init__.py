"""Readers of a corpus's sources: one document after another, from any place on."""
