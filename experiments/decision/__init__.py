"""A decision transformer: episodes of a simulator, the model that learns from them, and how it acts."""
