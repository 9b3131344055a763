"""Rows, run folders, tables and figures. Imports no torch and no other part of memx."""
