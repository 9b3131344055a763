"""`memx plot`: a subcommand for each picture, made from the list of pictures."""
