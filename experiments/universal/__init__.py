"""NAMMs and their rivals on hosts that read no text: a decision transformer and a video model."""
