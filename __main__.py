"""`python -m memx` and the command `memx`, which an interrupt ends in one line even while modules are imported."""

import sys


def main() -> None:
    """Run the command line, and exit with its exit code."""
    try:
        from .cli.main import main as run

        run()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
