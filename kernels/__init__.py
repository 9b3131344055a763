"""One folder per op: reference.py (plain torch, the definition), op.py (the choice of implementation)."""
