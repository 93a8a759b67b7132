"""The papers' experiments, run again: `PAPERS[paper][item]`."""

from . import random_ntk, sketching_theory
from ._report import Claim, Experiment

PAPERS: dict[str, dict[str, Experiment]] = {"000": random_ntk.EXPERIMENTS, "001": sketching_theory.EXPERIMENTS}

__all__ = ["PAPERS", "Claim", "Experiment"]
