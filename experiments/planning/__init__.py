"""`memx train --dry-run`: bytes, hours and GPUs of a run, without building it."""
