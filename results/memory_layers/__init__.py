"""Tables and pictures of memory layers."""
