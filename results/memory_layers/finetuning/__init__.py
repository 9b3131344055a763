"""What finetuned models learn and what they keep: in one go, or in parts one after another."""
