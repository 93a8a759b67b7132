"""`python -m sparseprune`."""

from .cli import main

main()
