"""A small video model: clips of digits, questions about them, its training, and the host of an evaluation."""
