"""`sparseprune doctor`: what is installed and what is missing."""

from __future__ import annotations

import sys

FLAGS = {
    "strict": "exit with 1 unless the compiled extension is loaded and triton imports",
}


def doctor(strict: bool = False) -> None:
    """Say what is installed, which backend serves each operation, and how to get what is missing.

    --strict exits with 1 unless the compiled extension is loaded and triton imports.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ..doctor import examine, healthy

    checks = examine()
    table = Table("", "what", "found", "how to get it")
    for check in checks:
        sign = Text("ok", "green") if check.ok else Text("missing", "red" if check.required else "yellow")
        table.add_row(sign, check.name, Text(check.found), Text(check.remedy))
    Console().print(table)
    if strict and not healthy(checks):
        missing = ", ".join(check.name for check in checks if check.required and not check.ok)
        print(f"sparseprune doctor: --strict needs {missing}", file=sys.stderr)
        sys.exit(1)
