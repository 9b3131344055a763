"""`python -m memx` and the command `memx`, which an interrupt ends in one line even while modules are imported."""

import os
import sys


def main() -> None:
    """Run the command line, and exit with its exit code."""
    from .experiments.runtime.signals import ignore_interrupts, interrupt_on_signals

    try:
        interrupt_on_signals()
        if "TORCHELASTIC_RUN_ID" in os.environ:  # a rank that torchrun started
            from .experiments.runtime.orphans import end_with_parent

            end_with_parent()
        from .cli.main import main as run

        run()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    finally:
        ignore_interrupts()


if __name__ == "__main__":
    main()
