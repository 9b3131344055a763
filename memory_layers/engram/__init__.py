"""Engram: hashed n-gram memory, whose table rows follow from token ids alone."""
