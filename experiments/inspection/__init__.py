"""Runs as they are looked at: one whole, several side by side, and a page of them. No torch here."""
