"""The version of memx, in a file that imports nothing: the build reads it, saved files and `--version` name it."""

__version__ = "0.1.0"
