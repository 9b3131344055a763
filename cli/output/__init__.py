"""What commands print: progress displays and tables."""
