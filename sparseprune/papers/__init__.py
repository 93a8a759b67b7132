"""The papers' experiments, run again: `PAPERS[paper][item]`."""

from . import (
    generalisation,
    lottery,
    random_ntk,
    sketching,
    sketching_theory,
    statistical_mechanics,
    teacher_student,
    teacher_student_theorems,
)
from ._report import Claim, Experiment

PAPERS: dict[str, dict[str, Experiment]] = {
    "000": random_ntk.EXPERIMENTS,
    "001": sketching.EXPERIMENTS | sketching_theory.EXPERIMENTS,
    "002": lottery.EXPERIMENTS,
    "003": generalisation.EXPERIMENTS,
    "004": statistical_mechanics.EXPERIMENTS | teacher_student.EXPERIMENTS | teacher_student_theorems.EXPERIMENTS,
}

__all__ = ["PAPERS", "Claim", "Experiment"]
