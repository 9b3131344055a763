"""The evicting KV cache: what it holds, what it observes, and how tokens leave it."""
