"""The `memx` command: one small file per subcommand. Heavy imports live inside the command functions."""
