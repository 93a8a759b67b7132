"""Paper 000, the tangent kernel of randomly pruned networks: its Monte-Carlo experiments E1-E4.

Reference: Yang & Wang, AISTATS 2023 (arXiv 2203.14328); the numbers beside ours are the specification's, printed by the
authors' notebook or read off its figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..ntk import monte_carlo
from ..results import Row
from ..theory import random_ntk as theory
from . import _random_ntk_pictures as pictures
from . import random_ntk_training
from ._random_ntk_notebook import (
    LAWS,
    PRINTED_DRAWS,
    PRINTED_LAWS,
    PRINTED_MEANS,
    PRINTED_VARIANCE,
    PRINTED_WIDTH,
    limit,
    pair,
)
from ._report import Claim, Experiment, Progress, collect
from ._statistics import Z, above, agree, below, equal, fit, fit_variances, relative_error

DEPTH = 3
COSINE = 0.7687972123753375  # of the notebook's pair
THETA = theory.theta(COSINE, DEPTH)

Key = dict[str, Any]
Picture = Callable[[list[Row], Path], None]
Claims = Callable[[list[Row]], list[Claim]]


@dataclass(frozen=True)
class Sizes:
    """How much to compute.

    Args:
        widths: of E1 and E4; `draws` of each.
        width: of E3 and of E2 unpruned; `spread_draws` of each.
    """

    widths: tuple[int, ...]
    width: int
    draws: int = 64
    spread_draws: int = 100


Plan = Callable[[Sizes, int], list[Key]]

FULL = Sizes(tuple(2**k for k in range(5, 14)), 2**10)  # the paper's
QUICK = Sizes(tuple(2**k for k in range(5, 10)), 2**7, draws=256)


def _key(seed: int, curve: str, width: int, density: float, draws: int, **other: Any) -> Key:
    plain = {"pair": "notebook", "depth": DEPTH, "rescaled": True, "input_pruned": False, "gradients": "kept"}
    return {"curve": curve, "width": width, "density": density, "draws": draws, **plain, **other, "seed": seed}


def _collect(name: str, keys: list[Key], out: Path, progress: Progress | None) -> list[Row]:
    """Return the rows of the keys; progress counts the weights drawn, roughly."""
    work = [key["draws"] * key["width"] * ((key["depth"] - 1) * key["width"] + 256) for key in keys]
    place = {id(key): index for index, key in enumerate(keys)}

    def compute(key: Key) -> dict[str, Any]:
        index = place[id(key)]

        def tick(done: int, draws: int) -> None:
            if progress is not None:
                units = sum(work[:index]) + work[index] * done / draws
                progress(int(units), sum(work), f"{name} {key['curve']}, width {key['width']}")

        return _measure(key, out / "draws.jsonl", tick)

    return collect(out / f"{name}.jsonl", keys, compute)


def _measure(key: Key, draws: Path, tick: Any) -> dict[str, Any]:
    names = ("depth", "width", "density", "draws", "rescaled", "input_pruned", "gradients", "seed")
    x, y = pair(key["pair"])
    parts = monte_carlo(x, y, **{name: key[name] for name in names}, layers=True, out=draws, progress=tick).double()
    values = parts.sum(1)
    root = math.sqrt(len(values))
    deviations = (values - limit(key)).abs()
    return {
        "mean": float(values.mean()),
        "standard_error": float(values.std()) / root,
        "variance": float(values.var()),
        "mad": float(deviations.mean()),
        "mad_error": float(deviations.std()) / root,
        "layers": parts.mean(0).tolist(),
        "layer_errors": (parts.std(0) / root).tolist(),
        "values": values.tolist(),
    }


def _of(rows: list[Row], **wanted: Any) -> list[Row]:
    return [row for row in rows if all(row["key"][name] == value for name, value in wanted.items())]


def _column(rows: list[Row], name: str) -> list[Any]:
    return [row["key"].get(name, row.get(name)) for row in rows]


def _measured_limit(rows: list[Row]) -> tuple[float, float]:
    """Return the limit of the means and its standard error: means = limit + c / n, by weighted least squares.

    The errors are those of one n Var over all widths: a row's own are known too badly to weigh by.
    """
    widths = _column(rows, "width")
    scaled = float(np.mean([row["variance"] * row["key"]["width"] for row in rows]))
    errors = [math.sqrt(scaled / row["key"]["width"] / row["key"]["draws"]) for row in rows]
    found = fit([[1.0] * len(rows), [1 / width for width in widths]], _column(rows, "mean"), errors)
    return float(found.coefficients[0]), float(found.errors[0])


def _plan_1(sizes: Sizes, seed: int) -> list[Key]:
    keys = [
        _key(seed, curve, width, density, sizes.draws)
        for width in sizes.widths
        for curve, density in (("full", 1.0), ("pruned", 0.5))
    ]
    keys.append(_key(seed, "un-rescaled", sizes.width, 0.5, sizes.draws, rescaled=False))
    return [*keys, keys[-1] | {"curve": "all gradients", "gradients": "all"}]


def _claims_1(rows: list[Row]) -> list[Claim]:
    full, pruned = _of(rows, curve="full"), _of(rows, curve="pruned")
    claims = [
        equal(f"the kernel of the {name} net converges to 2.4287", *_measured_limit(some), THETA)
        for name, some in (("full", full), ("rescaled pruned", pruned))
    ]
    common = [row for row in pruned if row["key"]["width"] in PRINTED_MEANS]
    theirs = [PRINTED_MEANS[row["key"]["width"]] for row in common]
    errors = [math.sqrt(row["variance"] * (1 / row["key"]["draws"] + 1 / PRINTED_DRAWS)) for row in common]
    claims.append(agree("the authors' means of the pruned net are ours", _column(common, "mean"), theirs, errors))
    (raw,), (unmasked,) = _of(rows, curve="un-rescaled"), _of(rows, curve="all gradients")
    density = raw["key"]["density"]
    text = f"un-rescaled, the kernel is alpha^L = {density**DEPTH:g} of 2.4287"
    claims.append(equal(text, raw["mean"] / THETA, raw["standard_error"] / THETA, density**DEPTH, tolerance=0.1))
    factors = theory.layer_factors(DEPTH, density, rescaled=False, gradients="all")
    limits = theory.contributions(COSINE, DEPTH)
    expected = [factor * limit for factor, limit in zip(factors, limits, strict=True)]
    text = "un-rescaled, pruned weights' gradients counted: layers' factors are alpha^L, alpha^(L-1), ..., alpha^(L-1)"
    claims.append(agree(text, unmasked["layers"], expected, unmasked["layer_errors"]))
    return claims


def _plan_2(sizes: Sizes, seed: int) -> list[Key]:
    return [
        _key(seed, law, theory.scaled_width(sizes.width, 1 - k / 8, power), 1 - k / 8, sizes.spread_draws)
        for law, power in LAWS.items()
        for k in range(5 if law == "quadratic" else 8)  # the authors stopped there too: a width of 64 n0
    ]


def _claims_2(rows: list[Row]) -> list[Claim]:
    base = rows[0]["key"]["width"]
    shares = [row["mad_error"] / row["mad"] for row in rows]
    share = math.sqrt(np.mean(np.square(shares)))
    claims = []
    for law, text in (
        ("linear", "a width of n0 / alpha keeps the deviation from growing (by a tenth or more, from p = 0 to 7/8)"),
        ("sqrt", "a width of n0 / sqrt(alpha) lets the deviation grow"),
        ("quadratic", "a width of n0 / alpha^2 makes the deviation shrink"),
    ):
        some = _of(rows, curve=law)
        logs = [-math.log(density) for density in _column(some, "density")]
        line = fit([[1.0] * len(some), logs], [math.log(mad) for mad in _column(some, "mad")], [share] * len(some))
        growth, error = line.coefficients[1] * logs[-1], line.errors[1] * logs[-1]
        judge, bound = {"linear": (below, math.log(1.1)), "sqrt": (above, 0.0), "quadratic": (below, 0.0)}[law]
        claims.append(judge(text, growth, error, bound, f"log growth to p = {1 - some[-1]['key']['density']:g}:"))
    model = [theory.mean_absolute_deviation(key["width"], key["density"]) for key in _column(rows, "key")]
    ours = _column(rows, "mad")
    text = "the deviation is sqrt(2/pi) sqrt((50 + 36 / alpha) / n)"
    claims.append(agree(text, ours, model, [share * m for m in model]))
    theirs = [PRINTED_LAWS[row["key"]["curve"]][round(8 * (1 - row["key"]["density"]))] for row in rows]
    theirs = [mad * math.sqrt(PRINTED_WIDTH / base) for mad in theirs]
    errors = [math.sqrt(2) * share * mad for mad in theirs]
    return [*claims, agree("the authors' deviations are ours", ours, theirs, errors)]


def _plan_3(sizes: Sizes, seed: int) -> list[Key]:
    return [_key(seed, "fixed width", sizes.width, 1 - k / 10, sizes.spread_draws) for k in range(10)]


def _claims_3(rows: list[Row]) -> list[Claim]:
    width, densities, draws = rows[0]["key"]["width"], _column(rows, "density"), _column(rows, "values")
    found = fit_variances([[1.0] * len(rows), [1 / density for density in densities]], draws, width)
    (a, b), (a_error, b_error) = found.coefficients, found.errors
    share = relative_error(draws)
    ours = [width * variance for variance in _column(rows, "variance")]
    model = [width * theory.variance(width, density) for density in densities]
    theirs = [PRINTED_WIDTH * variance for variance in PRINTED_VARIANCE]
    shown = f"A = {a:.3g} ± {Z * a_error:.2g}, B = {b:.3g} ± {Z * b_error:.2g}, worst residual {found.worst:.2g} of {Z}"
    return [
        above("at a fixed width the variance grows as the density falls", b, b_error, 0.0, "B ="),
        Claim("n Var = A + B / alpha", found.worst <= Z, shown),
        agree("A = 50, B = 36", ours, model, [share * m for m in model]),
        agree("the authors' variances are ours", ours, theirs, [math.sqrt(2) * share * v for v in theirs]),
    ]


def _plan_4(sizes: Sizes, seed: int) -> list[Key]:
    pruned = [_key(seed, "all layers pruned", width, 0.5, sizes.draws, input_pruned=True) for width in sizes.widths]
    two = {"pair": "two inputs", "depth": 1, "input_pruned": True}
    return [*pruned, *[_key(seed, "two inputs", width, 0.5, sizes.draws, **two) for width in FULL.widths]]


def _claims_4(rows: list[Row]) -> list[Claim]:
    claims = []
    for curve, name in (
        ("all layers pruned", "the notebook's pair"),
        ("two inputs", "two inputs and one hidden layer"),
    ):
        some = _of(rows, curve=curve)
        key = some[0]["key"]
        plain, mixed = limit(key), limit(key, input_pruned=True)
        found = _measured_limit(some)
        claims.append(equal(f"all layers pruned, {name}: the limit is Theta_L, as printed", *found, plain, rival=mixed))
        claims.append(equal(f"all layers pruned, {name}: it is the mixture over masks", *found, mixed, rival=plain))
    return claims


def _experiment(name: str, title: str, plan: Plan, picture: Picture, claims: Claims) -> Experiment:
    def rows(
        *, out: Path, quick: bool, data_dir: Path | None = None, progress: Progress | None = None, seed: int = 0
    ) -> list[Row]:
        return _collect(name, plan(QUICK if quick else FULL, seed), out, progress)

    return Experiment(name, title, rows, picture, claims)


EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (
        _experiment("E1", "Monte-Carlo estimate of the kernel against width", _plan_1, pictures.means, _claims_1),
        _experiment(
            "E2", "Deviation from the limit, the width growing with pruning", _plan_2, pictures.laws, _claims_2
        ),
        _experiment("E3", "Deviation from the limit at a fixed width", _plan_3, pictures.spread, _claims_3),
        _experiment("E4", "All layers pruned, the input layer too", _plan_4, pictures.input_pruned, _claims_4),
        random_ntk_training.EXPERIMENT,
    )
}
