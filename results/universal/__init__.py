"""NAMMs and their rivals on hosts that read no text: scores by cache size, and what is forgotten."""
