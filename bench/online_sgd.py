"""Online training of students in the teacher-student model beside the loop that anyone would write first."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sparseprune.measure import Row, alternate, row
from sparseprune.ops import reference
from sparseprune.theory.teacher_student.networks import Network, random_student, random_teacher
from sparseprune.theory.teacher_student.simulate import simulate

INPUTS, ETA = 500, 0.5
SIZES = ((2, 6), (5, 20))  # units of teacher and student
RUNS = (1, 8)
SAMPLES, LOOPED = 40_000, 2_000  # steps of a run, and of the loop: too slow for as many


def loop(teacher: Network, student: Network, xs: Tensor) -> Network:
    """Train a student sample by sample."""
    (w_star, v_star), w, v = teacher, student.w.clone(), student.v.clone()
    root, slope = math.sqrt(INPUTS), math.sqrt(2 / math.pi)
    for x in xs:
        field = w @ x / root
        output = torch.erf(field / math.sqrt(2))
        error = v @ output - v_star @ torch.erf(w_star @ x / root / math.sqrt(2))
        step = v * slope * torch.exp(-field.square() / 2) * error
        v -= ETA / INPUTS * output * error
        w -= ETA / root * torch.outer(step, x)
    return Network(w, v)


def rows(repeats: int = 5) -> list[Row]:
    """Milliseconds for a thousand steps of every run, the runs one after the other in the loop."""
    found = []
    for M, K in SIZES:
        teacher, student = random_teacher(M, INPUTS, 4.0, 0), random_student(K, INPUTS, 1)
        single = Network(*(t.float() for t in teacher)), Network(*(t.float() for t in student))
        xs = torch.randn(LOOPED, INPUTS, generator=torch.Generator().manual_seed(2))
        same = reference.normals(torch.arange(200), INPUTS, 0, 0)
        pairs = zip(loop(*single, same), simulate(teacher, student, 200), strict=True)
        agrees = all(float((a - b).abs().max()) < 1e-4 for a, b in pairs)
        for runs in RUNS:
            several = Network(student.w.expand(runs, -1, -1), student.v.expand(runs, -1))
            calls = {
                "ours": lambda t=teacher, s=several: simulate(t, s, SAMPLES),
                "loop": lambda nets=single, xs=xs: loop(*nets, xs),
            }
            times = alternate(calls, repeats)
            ours = [1e3 * t / SAMPLES for t in times["ours"]]
            theirs = [1e3 * t / LOOPED * runs for t in times["loop"]]
            case = f"M={M}, K={K}, N={INPUTS}, 1000 samples, {runs} runs"
            found.append(row("online_sgd", case, "per-sample loop", ours, theirs, agrees))
    return found
