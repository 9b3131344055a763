"""`memx eval`: closed-book questions, and lm-eval's tasks."""
