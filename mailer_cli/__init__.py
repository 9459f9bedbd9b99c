"""mailer: SMS-like campaigns from a shell."""

__version__ = "0.1.0"

SCHEMA = "0010"
"""The newest migration; a test keeps it equal to the folder."""
