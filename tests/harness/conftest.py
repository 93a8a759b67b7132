"""Few digits, and a job that takes no time."""

from dataclasses import replace

import pytest

from sparseprune.data import load
from sparseprune.harness import DENSE, Watcher, main
from sparseprune.results import identity

from ..one_thread import one_thread

__all__ = ["one_thread"]  # for every test here


@pytest.fixture(scope="session")
def digits():
    """A few hundred of them: what is tested here is no accuracy."""
    whole = load("digits")
    few = {f"train_{what}": getattr(whole, f"train_{what}")[:448] for what in ("pixels", "targets")}
    return replace(whole, **few, test_pixels=whole.test_pixels[:200], test_targets=whole.test_targets[:200])


@pytest.fixture(autouse=True)
def few_digits(digits, monkeypatch):
    monkeypatch.setattr(main, "load", lambda name, folder=None: digits if name == "digits" else load(name, folder))


def fake(job, dataset, checkpoint, watcher, rankings=None):
    """An accuracy that tells the job apart."""
    bonus = {"threshold": 0.0, "multinomial": 0.02}.get(job.method.partition("/")[2], 0.1)
    accuracy = 0.8 + bonus - 0.01 * job.seed if job.method != DENSE else 0.95
    ends = {"accuracy": accuracy, "diverged": False, "losses": [1.0, 0.5]}
    return {**ends, "density": job.density + 0.001, "prune_ms": 10.0 + job.seed, "collapsed": []}


class Counting(Watcher):
    """Which jobs were run."""

    def __init__(self) -> None:
        self.keys, self.done, self.jobs = [], None, []

    def planned(self, jobs, done):
        self.jobs, self.done = jobs, done

    def finished(self, job, row):
        self.keys.append(identity(job.key))
