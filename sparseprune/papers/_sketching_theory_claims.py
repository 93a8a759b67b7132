"""What the paper says of sketched masks, judged by rows of `sketching_theory`."""

from __future__ import annotations

import math
from typing import NamedTuple

from ..results import Row
from ..theory import sketching as theory
from ._report import Claim, curve
from ._statistics import Z, agree, equal, fit


class Share(NamedTuple):
    """An error over another or over a bound, as drawn, its standard error, and exactly."""

    drawn: float
    error: float
    exact: float


def ratio(rows: list[Row], others: list[Row]) -> list[Share]:
    """Return the errors of rows over those of other rows."""
    found = []
    for a, b in zip(rows, others, strict=True):
        share = math.hypot(a["standard_error"] / a["error"], b["standard_error"] / b["error"])
        found.append(Share(a["error"] / b["error"], a["error"] / b["error"] * share, a["exact"] / b["exact"]))
    return found


def claims(rows: list[Row]) -> list[Claim]:
    """Judge Lemmas 4.1 to 4.5, B.1, Theorems 4.4 and 7.2, and what the paper concludes from them."""
    sketch, uniform = curve(rows, "draws", mask="sketch"), curve(rows, "draws", mask="uniform")
    step, step_uniform = curve(rows, "step", mask="sketch"), curve(rows, "step", mask="uniform")
    line = fit(
        [[1.0] * len(sketch), [math.log(row["key"]["draws"]) for row in sketch]],
        [math.log(row["error"]) for row in sketch],
        [row["standard_error"] / row["error"] for row in sketch],
    )
    failing = ", ".join(f"{100 * row['failing']:.0f} % at {row['key']['step']:g}" for row in step)
    return [
        *_given_data(rows),
        _exact("Lemma 4.2, corrected: the error is (kappa^2/s) (|w0|_1^2 - |w0|_2^2)", sketch),
        _bounded("Lemma 4.2, corrected: at most |w0|_1^2 / s", sketch, "bound"),
        _bounded("Lemma 4.2 as printed: at most |w0|_2^2 / s", sketch, "printed"),
        equal("the error falls as 1/s: the slope of logarithms", line.coefficients[1], line.errors[1], -1.0),
        _exact("Theorem 4.4, corrected: the error is (kappa^2/s) sum (w^2/|w0|) (|w0|_1 - |w0|)", step),
        _bounded("Theorem 4.4, corrected: bounded with min |w0|", step, "bound"),
        _bounded(f"Theorem 4.4 as printed, with max |w0| (false for {failing} of Gaussian w0)", step, "printed"),
        _exact("Lemma 4.5: the error of uniform draws is ((d-1)/s) |w|^2", uniform + step_uniform),
        _bounded("Lemma 4.5: at most (d/s) |w|^2", uniform + step_uniform, "bound"),
        *_tail(rows),
        _small("at every step the sketch errs less than uniform draws", ratio(step, step_uniform), "sketch / uniform"),
        *_data(rows),
        *_network(rows),
    ]


def _given_data(rows: list[Row]) -> list[Claim]:
    given, (oracle,) = curve(rows, "given data"), curve(rows, "Lemma 4.1")
    found = []
    for text, name, expected in (
        ("Lemma B.1: E m = 1", "mean of m", [1.0] * len(given)),
        ("E |m|_0 = sum 1 - (1 - p)^s", "kept", [row["expected kept"] for row in given]),
    ):
        means, errors = zip(*(row[name] for row in given), strict=True)
        found.append(agree(text, list(means), expected, list(errors)))
    measured, exact, printed = (oracle["error"], oracle["standard_error"]), oracle["exact"], oracle["printed"]
    return [
        *found,
        _exact("the identity (S): the error of any law, weights and data", given),
        _bounded("Lemma 4.3: (S) without its negative term", given, "bound"),
        equal("Lemma 4.1, corrected: minus |X^T w0|^2 / s", *measured, exact, rival=printed),
        equal("Lemma 4.1 as printed: minus |X^T w0| / s", *measured, printed, rival=exact),
    ]


def _tail(rows: list[Row]) -> list[Claim]:
    sketch, uniform = curve(rows, "tail", mask="sketch"), curve(rows, "tail", mask="uniform")
    shares, d = ratio(sketch, uniform), sketch[0]["key"]["size"]
    drawn, errors, exact = zip(*shares, strict=True)
    text = "at most 1/d of the error of uniform draws: sketching avoids their factor d"
    return [
        agree("at w = w0 sketch / uniform is the formula's", list(drawn), list(exact), list(errors)),
        _small("at w = w0 the sketch errs less, whatever the tail", shares, "sketch / uniform"),
        _small(text, [Share(*(d * number for number in share)) for share in shares], "d sketch / uniform"),
    ]


def _data(rows: list[Row]) -> list[Claim]:
    least = min(row["key"]["examples"] for row in curve(rows, "data") if row["key"]["examples"] > 2)
    same, none = (
        [row for row in curve(rows, "data", seen=seen) if row["key"]["examples"] == least] for seen in ("same", "none")
    )
    # Errors go like 1/p, p the norm of independent data: of 3 examples or fewer they have no variance.
    tame = [row for row in curve(rows, "data") if row["key"]["seen"] != "independent" or row["key"]["examples"] > 3]
    text = f"a mask that saw no data errs 1/kappa^2 times as much, n = {least}: same / none"
    return [
        _exact("masks of the same data, of independent data, of none: kappa^2, k_n, 1 times S/s", tame),
        equal(text, *ratio(same, none)[0][:2], theory.kappa_squared(least), rival=1.0),
    ]


def _network(rows: list[Row]) -> list[Claim]:
    net = curve(rows, "network")
    return [
        _exact("(S) on the linear features of a trained net", net),
        _bounded("Theorem 7.2, from the proof", net, "bound"),
        _bounded("Theorem 7.2 as printed", net, "printed"),
    ]


def _exact(text: str, rows: list[Row]) -> Claim:
    measured, exact, errors = ([row[name] for row in rows] for name in ("error", "exact", "standard_error"))
    return agree(text, measured, exact, errors)


def _bounded(text: str, rows: list[Row], name: str) -> Claim:
    shares = [Share(*(row[field] / row[name] for field in ("error", "standard_error", "exact"))) for row in rows]
    return _small(text, shares, "error / bound")


def _small(text: str, shares: list[Share], what: str) -> Claim:
    """Judge that no share is above 1: false if draws are; else by exact values, if the draws agree with them."""
    worst = max(shares, key=lambda share: share.exact)
    shown = f"largest {what} {worst.exact:.4g}, drawn {worst.drawn:.4g} ± {Z * worst.error:.2g}"
    if any(share.drawn - Z * share.error > 1 for share in shares):
        return Claim(text, False, shown)
    known = all(abs(share.drawn - share.exact) <= Z * share.error for share in shares)
    return Claim(text, worst.exact <= 1 if known else None, shown)
