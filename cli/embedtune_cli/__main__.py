"""The entry point `embedtune`, and `python -m embedtune_cli`, which is how torchrun and accelerate launch it."""

import sys


def main() -> None:
    """Imports the verbs, which takes a while, and runs the command line. An interrupted import is said in one word."""
    try:
        from .app import main as run
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
