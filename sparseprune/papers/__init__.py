"""The papers' experiments, run again: `PAPERS[paper][item]`."""

from . import random_ntk, sketching, statistical_mechanics
from ._report import Claim, Experiment

PAPERS: dict[str, dict[str, Experiment]] = {
    "000": random_ntk.EXPERIMENTS,
    "001": sketching.EXPERIMENTS,
    "004": statistical_mechanics.EXPERIMENTS,
}

__all__ = ["PAPERS", "Claim", "Experiment"]
