"""Several processes: their group, their errors, and how a model is laid out over them."""
