"""Corpora of any size: sources of documents -> lanes of shuffled, packed rows, and the shards of `memx prepare`."""
