"""What paper 003's abstract says of random pruning, and the specification's C1 to C4, judged by their rows.

"Mild" is p in [log d / m, 1), the recalled threshold with its constant taken as 1; "over" p = 1 / (K m log d).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from ..results import Row
from ..theory.generalisation import Model
from ._generalisation_rows import (
    SPECIFIED,
    SPECIFIED_SEEDS,
    SPECIFIED_VARIANTS,
    at,
    keeps,
    mean,
    model,
    paired,
    values,
)
from ._report import Claim, curve
from ._statistics import Z, above, agree, below, mean_error, sign_test

_NEAR = 0.05  # an interval of accuracies that tells a law


def claims(rows: list[Row]) -> list[Claim]:
    """Judge training, masks, mild pruning (C1, C2), over-pruning (C3), the fall between (C4), and the variants."""
    sweep = curve(rows, "sweep")
    return [*_trained(sweep), *_mild(sweep), *_over(sweep), *_fall(sweep), *_variants(rows)]


def _trained(sweep: list[Row]) -> list[Claim]:
    """Judge what holds at every p."""
    net, order, loss = model(sweep), keeps(sweep), values(sweep, "training loss")
    worst = f"largest {loss.max():.3g} of {loss.size} runs, most steps {values(sweep, 'steps').max():.0f}"
    there = (np.array([row["own edges"] for row in sweep]) > 0).mean((0, 2))  # shares of classes, a number a p
    shares = {p: float(share) for p, share in zip(order, there, strict=True) if 0.001 < net.own_edge(p) < 0.999}
    chances = [net.own_edge(p) for p in shares]
    off = [math.sqrt(chance * (1 - chance) / (net.classes * len(sweep))) for chance in chances]
    norms = [(q, *paired(sweep, "noise norm", q, p)) for p, q in pairwise(order)]
    return [
        _as_specified(sweep),
        Claim("gradient descent fits at every p: training loss <= .001", bool(loss.max() <= 1e-3), worst),
        agree("a class keeps an edge to its own signal with chance 1 - (1 - p)^m", [*shares.values()], chances, off),
        _all_above("the lower p, the larger the weights off the signal", norms),
    ]


def _as_specified(sweep: list[Row]) -> Claim:
    """Judge that accuracies are those that the specification has of other seeds."""
    ours, theirs, off = [], [], []
    for p in keeps(sweep):
        if round(p, 6) in SPECIFIED:
            (found, error), (accuracy, deviation, _) = mean(sweep, "accuracy", p), SPECIFIED[round(p, 6)]
            ours.append(found)
            theirs.append(accuracy)
            off.append(math.hypot(error, deviation / math.sqrt(SPECIFIED_SEEDS)))
    return agree("accuracies are those of the specification's ten seeds", ours, theirs, off)


def _mild(sweep: list[Row]) -> list[Claim]:
    net, order = model(sweep), keeps(sweep)
    mild = [p for p in order if net.mild <= p]
    gains = [(p, *paired(sweep, "test loss", 1.0, p)) for p in mild[1:]]
    steps = [(q, *paired(sweep, "test loss", p, q)) for p, q in pairwise(mild)]
    inside = [p for p in order if 0.2 <= p <= 0.5]
    best = min(inside, key=lambda p: mean(sweep, "test loss", p)[0])
    others = [(p, *paired(sweep, "test loss", p, best)) for p in order if p not in inside]
    difference = at(sweep, "accuracy", 0.3) - at(sweep, "accuracy", 1.0)
    wins, losses = int((difference > 0).sum()), int((difference < 0).sum())
    count = f"{wins} of {len(sweep)}, two-sided sign test p = {sign_test(wins, losses):.2g}"
    return [
        _all_above("mild pruning lowers the test loss: every p in [log d / m, 1) is below p = 1", gains),
        _all_above("... and the more the lower p", steps),
        above("C1: at p = .3 a net is more accurate than at 1", *paired(sweep, "accuracy", 0.3, 1.0), 0.0, "gain"),
        Claim("C1: in at least 9 of 10 of these paired seeds", wins >= 0.9 * len(sweep), count),
        _all_above(f"C2: the test loss is least at p in [.2, .5] (at {best:g}): it is larger outside", others),
    ]


def _over(sweep: list[Row]) -> list[Claim]:
    net = model(sweep)
    loss, accuracy = (mean(sweep, field, net.over) for field in ("test loss", "accuracy"))
    text = "C3: over-pruned, a net is hardly better than a guess: test accuracy below 1 / K + .1"
    return [
        below(text, *accuracy, 1 / net.classes + 0.1, "mean"),
        above("C3: over-pruned, its test loss is above log K, a guess's", *loss, net.guess, "mean"),
    ]


def _fall(sweep: list[Row]) -> list[Claim]:
    net, order = model(sweep), keeps(sweep)
    high = min(p for p in order if p >= net.mild)
    middle = min(p for p in order if p * net.units >= math.log(net.classes))
    low = min(p for p in order if p > net.over)
    accuracy = {p: at(sweep, "accuracy", p) for p in (high, middle, low)}
    edges = {p: f"m p = {p * net.units:g}" for p in accuracy}
    text = f"C4: accuracy falls from {edges[high]} >= log d to {edges[low]} < log K"
    sharp = (
        f"C4: sharply: more from {edges[middle]} >= log K to {edges[low]} than from {edges[high]} to {edges[middle]}"
    )
    falls = accuracy[middle] - accuracy[low] - (accuracy[high] - accuracy[middle])
    apart = [sum(shares) / len(shares) for shares in map(_apart, sweep) if shares]
    one = "C4: a class that kept an edge to its own signal is told more often than one of the same net that kept none"
    return [
        above(text, *paired(sweep, "accuracy", high, low), 0.0, "paired fall"),
        above(sharp, *mean_error(falls.tolist()), 0.0, "paired difference of the falls"),
        _follows("C4: what a net knows more than a guess follows (1 - (1 - p)^m)^K", sweep, Model.every_class, 1),
        _follows(
            "C4: ... follows 1 - (1 - p)^m, the share of classes with an own edge", sweep, Model.own_edge, net.classes
        ),
        above(one, *mean_error(apart), 0.0, f"share more, {len(apart)} seeds:"),
        _by_classes(sweep),
    ]


def _by_classes(sweep: list[Row]) -> Claim:
    """Judge that below log d / m a net is the more accurate the more classes kept an own edge."""
    low = np.array(keeps(sweep)) < model(sweep).mild
    kept = (np.array([row["own edges"] for row in sweep]) > 0).sum(2)[:, low]
    accuracy = values(sweep, "accuracy")[:, low]
    groups = {  # nets of a seed are of the same data: their mean counts once
        int(count): mean_error([float(a[k == count].mean()) for a, k in zip(accuracy, kept, strict=True) if count in k])
        for count in np.unique(kept)
    }
    steps = [(b, groups[b][0] - groups[a][0], math.hypot(groups[a][1], groups[b][1])) for a, b in pairwise(groups)]
    claim = _all_above("C4: the more classes kept an own edge, the more accurate the net", steps)
    shown = ", ".join(f"{accuracy:.3f} with {count}" for count, (accuracy, _) in groups.items())
    return replace(claim, found=f"{shown}; {claim.found}")


def _apart(row: Row) -> list[float]:
    """Return, of each net with both, the shares told right of classes with own edges less those of classes without."""
    found = []
    for edges, told in zip(np.array(row["own edges"]), np.array(row["of class"]), strict=True):
        if (edges > 0).any() and (edges == 0).any():
            found.append(float(told[edges > 0].mean() - told[edges == 0].mean()))
    return found


def _follows(text: str, rows: list[Row], chance: Callable[[Model, float], float], trials: int) -> Claim:
    """Judge that below log d / m the accuracy is 1 / K + (A - 1 / K) chance(p), A that at the least p above.

    Masks scatter it as `trials` draws of the chance a net do: seeds that all lack what is rare do not scatter enough.
    """
    net = model(rows)
    guess = 1 / net.classes
    top, error = mean(rows, "accuracy", min(p for p in keeps(rows) if p >= net.mild))
    low = {p: mean(rows, "accuracy", p) for p in keeps(rows) if p < net.mild}
    law = [guess + (top - guess) * chance(net, p) for p in low]
    found = [accuracy for accuracy, _ in low.values()]
    errors = []
    for p, (_, off) in low.items():
        q = chance(net, p)
        drawn = (top - guess) * math.sqrt(q * (1 - q) / (trials * len(rows)))
        errors.append(math.hypot(max(off, drawn), q * error))
    worst = max(abs(a - b) for a, b in zip(found, law, strict=True))
    claim = agree(text, found, law, errors, tolerance=_NEAR)
    return replace(claim, found=f"off by {worst:.2g} at most; {claim.found}")


def _variants(rows: list[Row]) -> list[Claim]:
    found = []
    for name in ("less noise", "half the noise", "fixed step"):
        if some := curve(rows, name):
            text = f"{name}: at p = {{}} {{}} that at 1"
            gain, loss = paired(some, "accuracy", 0.3, 1.0), paired(some, "test loss", 0.5, 1.0)
            found.append(above(text.format(0.3, "the accuracy is above"), *gain, 0.0, "paired gain"))
            found.append(below(text.format(0.5, "the test loss is below"), *loss, 0.0, "paired difference"))
    for (name, field, seeds), numbers in SPECIFIED_VARIANTS.items():
        if some := curve(rows, name):
            ours, off = zip(*(mean(some, field, p) for p in numbers), strict=True)
            off = [max(error, 1e-9) * math.sqrt(1 + len(some) / seeds) for error in off]  # theirs scatter as ours
            found.append(agree(f"{name}: {field} as specified", list(ours), [*numbers.values()], off))
    for name in ("half the units", "twice the units"):
        if some := curve(rows, name):
            found.append(_follows(f"{name}: accuracy follows 1 - (1 - p)^m", some, Model.own_edge, model(some).classes))
    return found


def _all_above(text: str, differences: Sequence[tuple[float, float, float]]) -> Claim:
    """Judge "every difference is above 0", each (where, mean, standard error), by the least sure of them."""
    if not differences:
        return Claim(text, None, "nothing to compare")
    where, found, error = min(differences, key=lambda one: one[1] / one[2])
    sure = sum(one > Z * off for _, one, off in differences)
    holds = False if found < -Z * error else True if sure == len(differences) else None
    least = f"the least sure, at {where:.4g}, {found:.3g} ± {Z * error:.2g}"
    return Claim(text, holds, f"{sure} of {len(differences)} surely; {least}")
