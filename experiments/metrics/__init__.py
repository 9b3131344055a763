"""Scores of answers and their intervals, without torch."""
