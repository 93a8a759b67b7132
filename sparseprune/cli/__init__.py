"""The command line, one command a file."""

from .app import build, main

__all__ = ["build", "main"]
