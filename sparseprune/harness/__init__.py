"""The main job: methods x densities x seeds, pruned at initialization, trained, compared with the dense net."""

from .main import run
from .perform import perform
from .plan import DENSE, LAYOUTS, MASKED, RECIPES, Job, Plan, Recipe, fingerprint
from .watcher import Watcher

__all__ = [
    "DENSE", "LAYOUTS", "MASKED", "RECIPES", "Job", "Plan", "Recipe", "Watcher", "fingerprint", "perform", "run",
]  # fmt: skip
