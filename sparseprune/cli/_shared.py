"""What commands share: the words of common flags, wide tables, saved weights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from torch import nn

_WIDEST = 400
NET = "the net: mlp, lenet-300-100, small-conv, vgg19, resnet20, wide-resnet or resnet18"
SCORE = (
    "magnitude, random, sketch, synflow, synflow_l2, phew, ntk_sap, snip, iter_snip, force, grasp, grasp_it or prospr; "
    "imp and edge_popup train: sparseprune run"
)
SELECT = "threshold, threshold_rescaled, multinomial, poisson, systematic, bernoulli, priority or without_replacement"
DATA_DIR = "folder of the data set's files in their standard format; not needed for digits"


def print_whole(shown: Table, console: Console) -> None:
    """Print a table wider than the console rather than cut: a log has no edge, and a terminal wraps."""
    from rich.console import Console

    Console(width=max(console.width, Console(width=_WIDEST).measure(shown).maximum)).print(shown)


def split(values: list[str]) -> list[str]:
    """Split at commas outside of parentheses."""
    return [part.strip() for value in values for part in re.split(r",(?![^(]*\))", value) if part.strip()]


def load_weights(who: str, net: nn.Module, path: Path) -> None:
    """Load a saved state_dict into a net, or say in one line what is wrong with the file."""
    import torch

    try:
        net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except FileNotFoundError:
        raise
    except Exception as error:  # a foreign file fails in as many ways as there are formats
        raise ValueError(f"{who}: weights must be a saved state_dict of the model, got {path}: {error}") from None
