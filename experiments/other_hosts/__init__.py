"""What hosts that read no text share: what is measured on them, what their caches keep, and a training loop."""
