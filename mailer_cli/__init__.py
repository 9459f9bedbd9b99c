"""mailer: SMS-like campaigns from a shell."""

__version__ = "0.1.0"
