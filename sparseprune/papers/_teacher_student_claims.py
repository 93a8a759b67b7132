"""Verdicts on paper 004's simulations: Student's intervals over teachers, as rare as 3.5 errors, paired."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ..results import Row
from ._report import Claim, curve
from ._statistics import Z, above, agree, equal, mean_error
from ._teacher_student_printed import DPP_DEVIATION, NOISE, RANDOM_EDGE_SHIFT
from ._teacher_student_rows import NORMALISED, RAW
from ._teacher_student_students import (
    DIVNET,
    DPP_NODE,
    IMPORTANCE_EDGE,
    IMPORTANCE_NODE,
    RANDOM_EDGE,
    RANDOM_NODE,
    SCALED_EDGE,
    UNPRUNED,
)


def errors(rows: list[Row], M: int, sigma: float, of: str = RAW) -> dict[tuple[str, int], Row]:
    """Return the rows of errors of a setting by (method, k), of students as trained or with normalised rows."""
    mine = curve(rows, "errors", rows=of, M=M, sigma=sigma)
    return {(row["key"]["method"], row["key"]["k"]): row for row in mine}


def order(text: str, cells: dict[tuple[str, int], Row], one: str, other: str, units: Iterable[int]) -> Claim:
    """Judge "the error of one is less than the other's" at each of these units, paired by teacher."""
    gains = []
    for k in units:
        there = cells[(other, k)] if other != UNPRUNED else next(row for (m, _), row in cells.items() if m == UNPRUNED)
        gaps = [b - a for a, b in zip(cells[one, k]["values"], there["values"], strict=True)]
        gain, error = mean_error(gaps)
        gains.append((gain, Z * error, k))
    holds = False if any(g < -half for g, half, _ in gains) else True if all(g > half for g, half, _ in gains) else None
    shown = ", ".join(f"{g:+.3f} ± {half:.2g} at {k}" for g, half, k in gains)
    return Claim(text, holds, f"gain {shown}")


def _name(M: int, sigma: float) -> str:
    return f"{'Z = 3' if M == 2 else 'Z = 4'}, {'noise' if sigma else 'no noise'}"


def _units(cells: dict[tuple[str, int], Row], method: str) -> list[int]:
    return [k for name, k in cells if name == method]


def orders(rows: list[Row], sigma: float) -> list[Claim]:
    """Judge which method errs less, M = 2, Z = 3 (figure 2A to C)."""
    cells, what = errors(rows, 2, sigma), _name(2, sigma)
    units = _units(cells, DPP_NODE)
    pairs = (
        ("Conjecture 1, the fewest parameters: random edges beat random nodes", RANDOM_EDGE, RANDOM_NODE, units[:1]),
        ("figure 2A: random edges beat random nodes at every size", RANDOM_EDGE, RANDOM_NODE, units),
        ("figure 2B: importance edges beat importance nodes at every size", IMPORTANCE_EDGE, IMPORTANCE_NODE, units),
        # One unit, or all but one: equal at the ansatz.
        ("Theorem 2: DPP nodes beat random nodes", DPP_NODE, RANDOM_NODE, units[1:-1]),
        ("figure 2C: DPP nodes beat importance nodes", DPP_NODE, IMPORTANCE_NODE, units[1:]),
        ("importance edges beat random edges", IMPORTANCE_EDGE, RANDOM_EDGE, units),
        ("random edges beat DPP nodes, the fewest parameters", RANDOM_EDGE, DPP_NODE, units[:1]),
        ("DPP nodes beat random edges, more of them: Theorem 4 needs Z >= 4", DPP_NODE, RANDOM_EDGE, units[1:]),
    )
    return [order(f"{what}: {text}", cells, one, other, some) for text, one, other, some in pairs]


def scaled(rows: list[Row], M: int, sigma: float) -> list[Claim]:
    """Judge claim (d): no scaling of the output lets random edges beat DIVNET, up to M units (c <= 1/Z)."""
    cells = errors(rows, M, sigma)
    units = [k for k in _units(cells, DIVNET) if k <= M]
    text = f"{_name(M, sigma)}: Theorem 5: no output scale lets random edges beat DIVNET"
    return [order(text, cells, DIVNET, SCALED_EDGE, units)]


def of_table3(rows: list[Row]) -> list[Claim]:
    """Judge Table 3: its numbers, and what the paper reads from them."""
    claims = []
    for sigma in (0.0, NOISE):
        claims += _beside_table3(rows, sigma) + scaled(rows, 2, sigma)
    cells = errors(rows, 2, 0.0)
    units = _units(cells, DPP_NODE)
    for method in (DPP_NODE, RANDOM_EDGE, RANDOM_NODE):
        some = [cells[method, k] for k in units]
        off = [mean_error(row["values"])[1] for row in some]
        text = f"no noise, {method}: the closed form at the ansatz is the mean over teachers"
        claims.append(agree(text, [row["error"] for row in some], [row["theory"] for row in some], off))
    first = cells[DPP_NODE, units[0]]
    text = f"errors vary over teachers by more than the printed {DPP_DEVIATION}, over rounds of masks of one student"
    shown = (
        f"17 %, DPP node: {first['deviation']:.2g}, over rounds {first['of a round']:.2g}; log of the first / printed"
    )
    ratio, off = math.log(first["deviation"] / DPP_DEVIATION), 1 / math.sqrt(2 * (len(first["values"]) - 1))
    claims.append(above(text, ratio, off, 0.0, shown))
    text = "implicit regularisation, .040 < .051 (not halved): importance edges at 83 % beat the unpruned student"
    claims.append(order(text, cells, IMPORTANCE_EDGE, UNPRUNED, units[-1:]))
    text = f"{_trained(first)}: DIVNET with k = M units errs no more than the unpruned student, as at the ansatz"
    claims.append(order(text, cells, DIVNET, UNPRUNED, [2]))
    return claims


def _beside_table3(rows: list[Row], sigma: float) -> list[Claim]:
    """Judge Table 3's columns, of students as trained, and with normalised rows where the paper's may be so."""
    trained, normalised = (errors(rows, 2, sigma, of) for of in (RAW, NORMALISED))
    claims = []
    for method in dict.fromkeys(name for (name, _), row in trained.items() if row["paper"] is not None):
        text = f"{_name(2, sigma)}: Table 3, {method}"
        if method == UNPRUNED:
            text += ": half the printed original test loss, which is not halved as all else is"
        shift = RANDOM_EDGE_SHIFT if (method, sigma) == (RANDOM_EDGE, 0.0) else 0.0
        if shift:
            claims.append(_beside_printed(f"{text}, as printed", trained, method, sigma))
            text += f", plus the {shift} that all five cells of the authors' log have more"
        claims.append(_beside_printed(text, trained, method, sigma, shift))
        if method != UNPRUNED:
            claims.append(_beside_printed(f"{text}, students' rows normalised", normalised, method, sigma, shift))
    return claims


def _beside_printed(
    text: str, cells: dict[tuple[str, int], Row], method: str, sigma: float, shift: float = 0.0
) -> Claim:
    """Judge "what is printed is one more student": by our spread over teachers, the labels' noise added to ours."""
    some = [row for (name, _), row in cells.items() if name == method and row["paper"] is not None]
    ours = [row["with noise"] for row in some]
    theirs = [row["paper"] + shift for row in some]
    off = [mean_error(row["values"])[1] * math.sqrt(len(row["values"]) + 1) for row in some]
    return agree(text, ours, theirs, off)


def _trained(row: Row) -> str:
    return f"trained students, after {row['key']['epochs'] * row['key']['N']} samples"


def of_fig2(rows: list[Row]) -> list[Claim]:
    """Judge figure 2: A to C at Z = 3, D at Z = 4, the kernels E to G."""
    claims = []
    for sigma in (0.0, NOISE):
        claims += orders(rows, sigma)
        four = errors(rows, 5, sigma)
        text = f"{_name(5, sigma)}: Theorem 4: random edges beat DPP nodes for c <= 1/Z"
        claims += [order(text, four, RANDOM_EDGE, DPP_NODE, _units(four, DPP_NODE)), *scaled(rows, 5, sigma)]
        for method in (DPP_NODE, RANDOM_EDGE):
            claims.append(_beside_printed(f"{_name(5, sigma)}: figure 2D, {method}", four, method, sigma))
    (kernels,) = curve(rows, "kernels")
    text = "Lemma 1: the linear kernel of the units' fields is Q"
    claims.append(agree(text, kernels["linear"], kernels["overlaps"], kernels["linear errors"]))
    chance = kernels["chance"]
    for kernel, text, value in (
        ("linear", "a 2-DPP of the linear kernel keeps one unit of each group (Theorem 1), always", 1.0),
        ("Gaussian", "the Gaussian kernel as printed, beta = .3 a pair of inputs, is I: its 2-DPP is random", chance),
    ):
        claims.append(_share(text, kernels["one of each"][kernel], value))
    gaps = [a - b for a, b in zip(*(kernels["one of each"][x] for x in ("Gaussian, mean", "its signs")), strict=True)]
    text = "the Gaussian kernel sees signs: duplicates (w, v), (-w, -v) pass for different units"
    claims.append(above(text, *mean_error(gaps), 0.0, "chance of one of each lost where signs stay"))
    return claims


def _share(text: str, values: list[float], claimed: float, rival: float | None = None) -> Claim:
    """Judge "this is `claimed`" by the mean over students; where all agree, to rounding."""
    mean, error = mean_error(values)
    return equal(text, mean, max(error, 1e-9), claimed, rival=rival)


def of_fig5(rows: list[Row]) -> list[Claim]:
    """Judge figure 5: which groups are left after node pruning."""
    cells = {(row["key"]["method"], row["key"]["k"]): row for row in rows}
    at_2, at_3 = ({m: row for (m, k), row in cells.items() if k == units} for units in (2, 3))
    claims = [
        _share("random nodes, k = 2: a teacher unit is lost with chance 2/5", at_2[RANDOM_NODE]["lost"], 0.4, 0.0),
        _share("DPP nodes, k = 2: no teacher unit is ever lost", at_2[DPP_NODE]["lost"], 0.0),
    ]
    gaps = [a - b for a, b in zip(at_2[RANDOM_NODE]["lost"], at_2[DPP_NODE]["lost"], strict=True)]
    claims.append(
        above("DPP nodes lose fewer teacher units than random ones, k = 2", *mean_error(gaps), 0.0, "units fewer")
    )
    full = sum(lost == 1 for lost in at_3[IMPORTANCE_NODE]["lost"])
    text = "importance nodes fill one group before the other: k = 3 units are of one group"
    total = len(at_3[IMPORTANCE_NODE]["lost"])
    claims.append(Claim(text, full == total, f"in {full} of {total} students; of random units, 1 of 10"))
    sums = at_2[DPP_NODE]["sums"]
    after = _trained(rows[0])
    claims.append(_share(f"{after}: the v of a group, signs taken, add up to v* = 4, as Lemma 3 has it", sums, 4.0))
    norms = at_2[DPP_NODE]["norms"]
    claims.append(_share(f"{after}: Q_ii = 1, as at the ansatz", norms, 1.0))
    return claims


def of_fig6(rows: list[Row]) -> list[Claim]:
    """Judge figure 6: order parameters after edge pruning."""
    cells = {(row["key"]["method"], row["key"]["k"]): row for row in rows}
    units = _units(cells, RANDOM_EDGE)
    some = [cells[RANDOM_EDGE, k] for k in units]
    lists = ([x for row in some for x in row[name]] for name in ("found", "expected", "errors"))
    claims = [agree("Lemma 4: E Q'_ii = c Q_ii, E Q'_ik = c^2 Q_ik, E R' = c R", *lists)]
    text = "|Q - Q'| is less of importance edges than of random ones"
    claims.append(order(text, cells, IMPORTANCE_EDGE, RANDOM_EDGE, units))
    for k in units:
        row = cells[IMPORTANCE_EDGE, k]
        text = f"importance edges, c = {row['share']:.3g}: Q'_ii / Q_ii = q(c), as of Gaussian weights"
        claims.append(equal(text, *mean_error(row["moments"]), row["theory"]))
    return claims
