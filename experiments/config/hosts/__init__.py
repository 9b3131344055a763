"""Configs of models that read no text: what memx train trains besides language models."""
