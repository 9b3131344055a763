"""Cache-aware finetuning: a model is trained to answer from what an eviction policy leaves of its cache."""
