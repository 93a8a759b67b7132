"""The main job: methods x densities x seeds, pruned at initialization, trained, compared with the dense net."""

from .job import BINS, WIDEST, perform
from .main import run
from .plan import DENSE, LAYOUTS, MASKED, Job, Plan, Recipe, fingerprint, recipe_of
from .watcher import Watcher, collapse

__all__ = [
    "BINS", "DENSE", "LAYOUTS", "MASKED", "WIDEST",
    "Job", "Plan", "Recipe", "Watcher", "collapse", "fingerprint", "perform", "recipe_of", "run",
]  # fmt: skip
