"""`python -m memx` is the `memx` command."""

from .cli.main import main

if __name__ == "__main__":
    main()
