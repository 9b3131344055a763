"""Run folders, rows and JSON lines on disk."""
