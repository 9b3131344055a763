"""NAMMs: networks that read attention and decide which tokens of a KV cache to keep.

So far their parts, as functions: features of tokens, scorer networks, rules of eviction. No host model meets them yet.
"""
