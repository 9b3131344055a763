"""Commands on hosts that read no text: decision transformers and video models."""
