"""The program's first lines: signals are heard before anything else is imported. Until then a Ctrl-C is
Python's own KeyboardInterrupt, whatever is being imported."""

import sys

try:
    import time

    from mailer_cli.stop import Stop

    STOP = Stop(time.monotonic)
    STOP.listen()
except KeyboardInterrupt:
    sys.exit(130)


def main() -> int:
    """Run one command; its exit code."""
    from mailer_cli import start

    try:
        return start.main(STOP)
    finally:
        STOP.drain()


if __name__ == "__main__":
    sys.exit(main())
