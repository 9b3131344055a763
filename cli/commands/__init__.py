"""The commands: each parses its options, calls one function of experiments or results, and prints."""
