"""Checkpoints of a training run: whole or absent, and only ever resumed by the run that wrote them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..files import write_whole


def save(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings, lists, dicts) to `path`, whole or not at all."""
    write_whole(path, lambda stream: torch.save(state, stream))


def load(path: Path, recipe: dict[str, Any], device: torch.device) -> dict[str, Any] | None:
    """Read what `save` wrote.

    Args:
        path: the file; None is returned where there is none.
        recipe: what the run is about to do; must equal what the file says it did.
        device: where its tensors go.

    Returns:
        The state, or None.

    Raises:
        ValueError: not a checkpoint, or one of another recipe; names the file.
    """
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        found = state["recipe"]
    except Exception as error:  # a foreign file fails in as many ways as there are formats
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"train: checkpoint {path} is not one of ours or is damaged ({reason}); delete it") from None
    if found != recipe:
        different = [key for key in recipe if found.get(key) != recipe[key]]
        raise ValueError(
            f"train: checkpoint {path} was written with another {', '.join(different)}: "
            f"{ {key: found.get(key) for key in different} }, not { {key: recipe[key] for key in different} }"
        )
    return state
