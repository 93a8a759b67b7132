"""Verdicts on paper 004's lemmas and theorems, as printed and corrected."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ..results import Row
from ..theory.teacher_student.odes import lemma_3_rate, lemma_3_rate_printed
from ._report import Claim, curve
from ._statistics import agree, equal, fit

ROUNDING = 1e-7  # of sums that should agree to all digits


def of_theorems(rows: list[Row]) -> list[Claim]:
    """Judge every lemma and theorem of sections 3 and 4, Conjecture 1 and Remark 4."""
    return [
        _drawn("I2, J2, I3, I4 are the integrals of the ODEs", curve(rows, "integrals")),
        _drawn("equation 13: the generalisation error is half the mean squared error", curve(rows, "equation 13")),
        _drawn("Lemma 1: the linear kernel's mean is Q, for every N", curve(rows, "Lemma 1")),
        *_of_sets(rows),
        *_of_dpp(curve(rows, "k-DPP")),
        *_of_theorem_2(curve(rows, "Theorem 2")),
        *_of_equation_18(curve(rows, "equation 18")),
        *_of_lemma_3(curve(rows, "Lemma 3")),
        *_of_lemma_4(curve(rows, "Lemma 4")),
        *_of_theorem_3(curve(rows, "Theorem 3")),
        _drawn("importance edges: the closed form with q(c), copies sharing a mask", curve(rows, "importance edges")),
        _exact("signs: flipped units are the same student, canonical again", curve(rows, "signs"), "off"),
        *of_fig4(rows),
        *_of_conjecture_1(curve(rows, "Conjecture 1")),
    ]


def of_fig4(rows: list[Row]) -> list[Claim]:
    """Judge Theorems 4 and 5 by their margins at 20,000 shares 0 < c <= 1/Z for every Z."""
    of = {row["key"]["Z"]: row for row in curve(rows, "margins")}
    large = {Z: row for Z, row in of.items() if Z >= 4}
    narrow = f"{len(large)} Z of {min(large)} to {max(large)}, at c = 1/Z, Z = 4 by {large[4]['4'][-1]:.4g} M v*^2"
    where = ", ".join(f"{of[Z]['crossing']:.4f} at Z = {Z}" for Z in (2, 3, 4, 5) if Z in of)
    most = max(row["most of 5"] for row in of.values())
    four = "Theorem 4: random edges err less than DPP nodes for 0 < c <= 1/Z"
    five = "Theorem 5: scaled as well as can be, random edges err more than DIVNET for 0 < c <= 1/Z, c < 1"
    return [
        Claim(f"{four}, Z >= 4", all(row["least of 4"] > 0 for row in large.values()), narrow),
        Claim(
            f"{four}, every Z",
            all(row["least of 4"] > 0 for row in of.values()),
            f"only for c < {where}; Z = 1: for none",
        ),
        Claim(f"{five}, every Z", most < 0, f"largest difference {most:.2g} M v*^2"),
    ]


def _of_sets(rows: list[Row]) -> list[Claim]:
    some = curve(rows, "every set")
    sets = sum(2 ** (row["key"]["M"] * row["key"]["Z"]) for row in some)

    def judge(text: str, name: str) -> Claim:
        worst = max(row["off"][name] for row in some)
        return Claim(text, worst < ROUNDING, f"all {sets} sets of {len(some)} (M, Z), off by at most {worst:.1g}")

    return [
        judge("Lemma 2: the error of any set of units, its condition sum l_m <= M not needed", "Lemma 2"),
        judge("Lemma 2 for units of unequal v: (v* - sum of the group's v)^2 / 6", "unequal v"),
        judge("random nodes: u M (1 - c) (1 - c (K - M) / (K - 1))", "random"),
        judge("random nodes, reweighted: u M C(K - Z, k) / C(K, k)", "random, reweighted"),
    ]


def _of_dpp(rows: list[Row]) -> list[Claim]:
    few = [row for row in rows if row["key"]["k"] <= row["key"]["M"]]
    all_kept = [row for row in few if row["key"]["k"] == row["key"]["M"]]
    more = [row for row in rows if row not in few]
    draws = sum(row["key"]["sets"] for row in few)
    one = min(row["one of each"] for row in few)
    lost = max(abs(row["found"][1]) for row in all_kept)
    return [
        Claim(
            "Theorem 1: a k-DPP, k <= M, keeps at most one unit of a group", one == 1, f"in {one:.2%} of {draws} draws"
        ),
        _drawn("Theorem 1: its error (5), and DIVNET's (6)", few),
        _drawn("k > M units: groups weigh C(Z, l) l, l >= 1", more),
        Claim("DIVNET with k = M units errs nothing", lost < ROUNDING, f"at most {lost:.1g}"),
    ]


def _of_theorem_2(rows: list[Row]) -> list[Claim]:
    claims = []
    texts = {
        "7": "Theorem 2 (7): DPP nodes err less than random ones",
        "8": "Theorem 2 (8): DIVNET errs less than random nodes, reweighted",
        "9": "Theorem 2 (9): DIVNET errs less than any k units",
    }
    for number, text in texts.items():
        cases = [(row["key"]["Z"], k, gap) for row in rows for k, gap in enumerate(row[number], start=1)]
        gaps = [gap for _, _, gap in cases]
        strict = [gap for Z, k, gap in cases if Z >= 2 and (k >= 2 or number == "9")]
        ties = sum(abs(gap) < 1e-12 for gap in gaps)
        found = f"equal in {ties} of {len(gaps)} cases of M, Z <= 5, k <= M, least difference {min(gaps):.1g}"
        claims.append(Claim(f"{text}, as printed: strictly", min(gaps) > 1e-12, found))
        when = "Z >= 2" if number == "9" else "k >= 2 and Z >= 2, else equal"
        holds = min(strict) > 1e-12 and min(gaps) > -1e-12 and ties == len(gaps) - len(strict)
        claims.append(Claim(f"{text}: strictly for {when}", holds, f"least {min(strict):.3g}"))
    return claims


def _of_equation_18(rows: list[Row]) -> list[Claim]:
    left = "(18): l - 1 + (1 - l/Z)^2 ="
    forms = (("corrected", f"{left} l (1 + l/Z^2 - 2/Z)"), ("printed", f"{left} l (1 + 1/Z^2 - 2/Z), as printed"))
    return [_exact(text, rows, name) for name, text in forms]


def _of_lemma_3(rows: list[Row]) -> list[Claim]:
    rates = [rate for row in rows for rate in row["rates"]]
    claims = []
    forms = (("(2 / pi) asin(1/2) = 1/3", lemma_3_rate()), ("asin(1/2), as printed", lemma_3_rate_printed()))
    for text, rate in forms:
        off = max(abs(one - rate) for one in rates)
        found = f"{len(rates)} units: {min(rates):.6f} to {max(rates):.6f}, claimed {rate:.6f}"
        claims.append(Claim(f"Lemma 3: dv_i/dt = eta rate (v* - sum v_j), rate = {text}", off < ROUNDING, found))
    return claims


def _of_lemma_4(rows: list[Row]) -> list[Claim]:
    (row,) = rows
    units = len(row["diagonal by the proof"])
    found, errors = row["found"][:units], row["errors"][:units]
    return [
        _drawn("Lemma 4: E Q'_ii = c Q_ii, E Q'_ik = c^2 Q_ik, E R' = c R", rows),
        agree("Lemma 4's proof: E Q'_ii = c^2 Q_ii", found, row["diagonal by the proof"], errors),
    ]


def _of_theorem_3(rows: list[Row]) -> list[Claim]:
    """Judge by means over masks, their terms in 1/N fitted and taken off."""
    limits, errors, exact, averaged = [], [], [], []
    for c in dict.fromkeys(row["key"]["c"] for row in rows):
        some = [row for row in rows if row["key"]["c"] == c]
        columns = [[1.0] * len(some), [1 / row["key"]["N"] for row in some]]
        line = fit(columns, [row["found"][0] for row in some], [row["errors"][0] for row in some])
        limits.append(float(line.coefficients[0]))
        errors.append(float(line.errors[0]))
        exact.append(some[-1]["exact"][0])
        averaged.append(some[-1]["averaged"])
    logs = [math.log(row["errors"][0] * math.sqrt(row["key"]["masks"])) for row in rows]
    names = list(dict.fromkeys(row["key"]["c"] for row in rows))
    columns = [[float(row["key"]["c"] == c) for row in rows] for c in names]
    sizes = [math.log(row["key"]["N"]) for row in rows]
    # Of a deviation over masks, and of the fourth moment of M rows of N Gaussian weights, to which its square is due.
    moments = [(105 - 9) / 9 / (row["key"]["M"] * row["key"]["N"]) for row in rows]
    off = [
        math.hypot(1 / math.sqrt(2 * row["key"]["masks"]), 0.5 * math.sqrt(m))
        for row, m in zip(rows, moments, strict=True)
    ]
    line = fit([*columns, sizes], logs, off)
    return [
        agree("Theorem 3 (10): the error after random edge pruning, as N grows", limits, exact, errors),
        agree("... is that of the expected network, E[w m] = c w, as it is called", limits, averaged, errors),
        equal(
            "Remark 4: over masks it deviates by 1/sqrt N",
            float(line.coefficients[-1]),
            float(line.errors[-1]),
            -0.5,
            rival=0.0,
        ),
    ]


def _of_conjecture_1(rows: list[Row]) -> list[Claim]:
    first = {(row["key"]["M"], row["key"]["Z"]): row["gaps"][0] for row in rows}
    ahead = {size: sum(gap > 0 for gap in row["gaps"]) for size, row in zip(first, rows, strict=True)}
    shown = "; ".join(f"M = {M}, Z = {Z}: up to k = {k} of {M * Z}" for (M, Z), k in ahead.items() if k)
    text = "Conjecture 1: random edges err less than random nodes, the fewest parameters"
    least = min(gap / row["key"]["M"] for row in rows for gap in row["of importance"])
    found = f"{len(rows)} (M, Z), Z = 1 too; by at least {least:.2g} M v*^2"
    return [
        Claim(f"{text}, Z >= 2", all(gap > 0 for (_, Z), gap in first.items() if Z >= 2), shown),
        Claim(f"{text}, every Z", all(gap > 0 for gap in first.values()), "Z = 1: nodes err less for every k"),
        Claim("Conjecture 1: edges by importance err less than nodes by importance, every k", least > 0, found),
    ]


def _drawn(text: str, rows: Iterable[Row]) -> Claim:
    """Judge "the closed forms are the means of what was drawn"; draws that are all the same, to rounding."""
    rows = list(rows)
    found, exact, errors = ([value for row in rows for value in row[name]] for name in ("found", "exact", "errors"))
    return agree(text, found, exact, [max(error, ROUNDING) for error in errors])


def _exact(text: str, rows: list[Row], name: str) -> Claim:
    worst = max(row[name] for row in rows)
    return Claim(text, worst < ROUNDING, f"off by at most {worst:.1g}")
