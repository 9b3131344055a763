"""NAMMs: networks that read attention and decide which tokens of a KV cache to keep. Nothing is here yet."""
