"""`memx bench`: its subcommands, their options, and what runs the benchmarks."""
