"""Saved training states and exported models."""
