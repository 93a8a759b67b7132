"""Intervals and fits that verdicts rest on."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..results import Row
from ._report import Claim

# An interval is +- this many standard errors: of 25 verdicts on true claims one is false in about 1 % of runs.
Z = 3.5


@dataclass(frozen=True)
class Fit:
    """A weighted least-squares fit.

    Args:
        coefficients, errors: and their standard errors.
        worst: the largest residual, in its standard errors.
    """

    coefficients: np.ndarray
    errors: np.ndarray
    worst: float


def fit(columns: list[list[float]], values: list[float], errors: list[float]) -> Fit:
    """Fit values = sum_j c_j columns_j, the values having these standard errors."""
    scale = 1 / np.asarray(errors)
    design = np.stack([np.asarray(column, dtype=float) for column in columns], axis=1) * scale[:, None]
    scaled = np.asarray(values) * scale
    coefficients = np.linalg.lstsq(design, scaled, rcond=None)[0]
    spread = np.sqrt(np.diag(np.linalg.inv(design.T @ design)))
    return Fit(coefficients, spread, float(np.abs(scaled - design @ coefficients).max()))


def log_slope(rows: list[Row], size: str, errors: str = "errors") -> tuple[float, float]:
    """Return the slope of the mean log error against the log of a size of the key, and its standard error."""
    logs = [np.log(row[errors]) for row in rows]
    means, off = [float(x.mean()) for x in logs], [float(x.std(ddof=1)) / math.sqrt(len(x)) for x in logs]
    line = fit([[1.0] * len(rows), [math.log(row["key"][size]) for row in rows]], means, off)
    return float(line.coefficients[1]), float(line.errors[1])


def fit_variances(columns: list[list[float]], draws: list[list[float]], scale: float) -> Fit:
    """Fit scale * variance of the draws = sum_j c_j columns_j.

    A variance's standard error is a share of its expectation, sqrt((kurtosis - 1) / N): of the fit, not of the row,
    which would give the smaller rows of a kind more weight.
    """
    values = [float(np.var(row, ddof=1)) * scale for row in draws]
    errors = np.asarray(values)
    for _ in range(20):
        found = fit(columns, values, [float(e) for e in errors])
        errors = relative_error(draws) * (np.asarray(columns).T @ found.coefficients)
    return fit(columns, values, [float(e) for e in errors])


def relative_error(draws: list[list[float]]) -> float:
    """Return the standard error of a variance over the variance, by the kurtosis of all rows together."""
    standard = [(np.asarray(row) - np.mean(row)) / np.std(row) for row in draws]
    return float(np.sqrt((np.mean(np.concatenate(standard) ** 4) - 1) / min(len(row) for row in draws)))


def equal(
    text: str, found: float, error: float, claimed: float, *, rival: float | None = None, tolerance: float = 0.05
) -> Claim:
    """Judge "a number is `claimed`": the interval has it and not the rival, or is narrow against it without one."""
    half = Z * error
    inside = abs(found - claimed) <= half
    told = half <= tolerance * (abs(claimed) or 1) if rival is None else abs(found - rival) > half
    shown = f"{found:.5g} ± {half:.2g}, claimed {claimed:.6g}"
    if inside and not told:
        shown += ": too wide an interval" if rival is None else f"; {rival:.6g} is in the interval too"
    return Claim(text, (True if told else None) if inside else False, shown)


def agree(
    text: str, ours: list[float], theirs: list[float], errors: list[float], *, tolerance: float = math.inf
) -> Claim:
    """Judge "these numbers are those": each differs by less than its interval; None where one is wider than allowed."""
    worst = max(abs(a - b) / error for a, b, error in zip(ours, theirs, errors, strict=True))
    told = Z * max(errors) <= tolerance
    shown = f"{len(ours)} numbers, the worst off by {worst:.2g} standard errors ({Z} allowed)"
    shown += "" if told else f"; intervals up to {Z * max(errors):.2g}"
    return Claim(text, (True if told else None) if worst <= Z else False, shown)


def above(text: str, found: float, error: float, bound: float, what: str) -> Claim:
    """Judge "a number is above `bound`"; None where its interval has the bound."""
    half = Z * error
    holds = None if abs(found - bound) <= half else found > bound
    return Claim(text, holds, f"{what} {found:.4g} ± {half:.2g}")


def below(text: str, found: float, error: float, bound: float, what: str) -> Claim:
    """Judge "a number is below `bound`"; None where its interval has the bound."""
    claim = above(text, -found, error, -bound, what)
    return Claim(text, claim.holds, f"{what} {found:.4g} ± {Z * error:.2g}")


def interval(values: list[float]) -> tuple[float, float]:
    """Return the mean and half of its 95 % interval by Student's t; infinite of one value."""
    from scipy.stats import t

    if len(values) < 2:
        return values[0], math.inf
    error = statistics.stdev(values) / math.sqrt(len(values))
    return statistics.fmean(values), float(t.ppf(0.975, len(values) - 1)) * error


def judged(
    text: str,
    one: Mapping[Any, float],
    other: Mapping[Any, float],
    *,
    above: float = -math.inf,
    below: float = math.inf,
    percent: bool = True,
) -> Claim:
    """Judge `above < one - other < below` by the interval of paired seeds: within, wholly outside, or neither."""
    mean, half = interval([one[seed] - other[seed] for seed in one])
    inside = above < mean - half and mean + half < below
    outside = mean + half <= above or mean - half >= below
    numbers = f"{100 * mean:+.2f} ± {100 * half:.2f} points" if percent else f"{mean:+.3g} ± {half:.2g}"
    return Claim(text, inside if inside or outside else None, f"difference {numbers} (95 %, {len(one)} paired seeds)")


def mean_error(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and its standard error, infinite of one value; nothing is known of none.

    `Z` of these errors are as rare by Student's t as `Z` of known ones: the deviation of few values is not known well.
    """
    from scipy.stats import norm, t

    if len(values) < 2:
        return sum(values), math.inf
    widening = float(t.isf(norm.sf(Z), len(values) - 1)) / Z
    return statistics.fmean(values), widening * statistics.stdev(values) / math.sqrt(len(values))


def sign_test(wins: int, losses: int) -> float:
    """Return the two-sided p: the chance of as uneven a count or more, were both signs as likely; ties left out."""
    n = wins + losses
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(max(wins, losses), n + 1)) / 2**n)
