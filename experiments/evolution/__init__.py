"""`memx evolve-namm`."""
