"""The papers' experiments, run again: `PAPERS[paper][item]`."""

from ._report import Claim, Experiment, Progress, collect

__all__ = ["Claim", "Experiment", "Progress", "collect"]
