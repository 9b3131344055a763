"""Records of a user's files (JSON, JSON lines, CSV, TSV, Parquet, spreadsheets): values with their places."""
