"""Tables and pictures of NAMMs."""
