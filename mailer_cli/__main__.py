"""`python -m mailer_cli` is `mailer`."""

import sys

from mailer_cli.cli import main

if __name__ == "__main__":
    sys.exit(main())
