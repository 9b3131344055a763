"""What a NAMM reads of each cached token: features by name, each with its equation and its cost."""
