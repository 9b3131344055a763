"""`memx eval-namm`: policies compared on the same prompts."""
