"""`python -m capsmith` and the `capsmith` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; an interruption is quiet from the first import on."""
    try:
        from capsmith.cli.app import run

        status = run(sys.argv[1:])
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)


if __name__ == "__main__":
    main()
