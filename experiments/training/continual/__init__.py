"""`memx train`."""
