"""The papers' experiments, run again: `PAPERS[paper][item]`."""

from . import lottery, random_ntk
from ._report import Claim, Experiment

PAPERS: dict[str, dict[str, Experiment]] = {"000": random_ntk.EXPERIMENTS, "002": lottery.EXPERIMENTS}

__all__ = ["PAPERS", "Claim", "Experiment"]
