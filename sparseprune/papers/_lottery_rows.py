"""What paper 002's experiments share: how rows are made, and what is read from them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..results import Row
from ._report import Claim, Experiment, Progress, collect
from ._statistics import Z

Key = dict[str, Any]


def experiment(
    name: str,
    title: str,
    plan: Callable[[bool, int], list[Key]],
    measure: Callable[[Key], dict[str, Any]],
    picture: Callable[[list[Row], Path], None],
    claims: Callable[[list[Row]], list[Claim]],
) -> Experiment:
    """Return the experiment whose rows are `measure` of each key of plan(quick, seed)."""

    def rows(
        *, out: Path, quick: bool, data_dir: Path | None = None, progress: Progress | None = None, seed: int = 0
    ) -> list[Row]:
        return collect(out / f"{name}.jsonl", plan(quick, seed), measure, progress)

    return Experiment(name, title, rows, picture, claims)


def success(text: str, wins: int, trials: int, claimed: float) -> Claim:
    """Judge "the chance is at least `claimed`" by the Wilson interval of the share."""
    share, square = wins / trials, Z**2 / trials
    middle = (share + square / 2) / (1 + square)
    half = Z * math.sqrt(share * (1 - share) / trials + square / (4 * trials)) / (1 + square)
    holds = True if middle - half >= claimed else False if middle + half < claimed else None
    return Claim(text, holds, f"{wins} of {trials}: [{middle - half:.4g}, {middle + half:.4g}]")
