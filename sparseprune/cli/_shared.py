"""What commands share: the words of common flags, wide tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_WIDEST = 400
NET = "the net: mlp, lenet-300-100, small-conv, vgg19, resnet20, wide-resnet or resnet18"
DATA_DIR = "folder of the data set's files in their standard format; not needed for digits"


def print_whole(shown: Table, console: Console) -> None:
    """Print a table wider than the console rather than cut: a log has no edge, and a terminal wraps."""
    from rich.console import Console

    Console(width=max(console.width, Console(width=_WIDEST).measure(shown).maximum)).print(shown)


def split(values: list[str]) -> list[str]:
    return [part.strip() for value in values for part in value.split(",") if part.strip()]
