"""`memx bench`: what it measures and how."""
