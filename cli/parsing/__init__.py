"""How the command line is parsed: old spellings, options given twice, groups with a default command, paths."""
