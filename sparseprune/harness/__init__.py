"""The main job: methods x densities x seeds, pruned at initialization, trained, compared with the dense net."""

from .job import BINS, WIDEST, perform
from .main import run
from .plan import DENSE, LAYOUTS, MASKED, RECIPES, Job, Plan, Recipe, fingerprint
from .watcher import Watcher, collapse

__all__ = [
    "BINS", "DENSE", "LAYOUTS", "MASKED", "RECIPES", "WIDEST",
    "Job", "Plan", "Recipe", "Watcher", "collapse", "fingerprint", "perform", "run",
]  # fmt: skip
