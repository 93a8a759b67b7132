"""Paper 002, neuron-subnetworks: Remark 3.6, Lemma 3.3, Theorem 3.4, and what they cannot do that weights can.

Reference: Malach et al., ICML 2020 (arXiv 2002.00585).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..results import Row
from ..theory.lottery import errors, neurons, universal, weights
from . import _lottery_pictures as pictures
from ._lottery_rows import experiment
from ._report import Claim, curve
from ._statistics import above, below, equal, log_slope

Key = dict[str, Any]
TOLERANCE = 0.1
SECOND_LAYER = 20  # units of the ticket's second layer: none has the sign wanted in 2^-20 of networks


@dataclass(frozen=True)
class Sizes:
    """How much to compute.

    Args:
        blocks: k2 of Remark 3.6; `draws` of each.
        widths: hidden units of the neuron-subnetwork's network; `features` draws of each.
        tickets: draws of weight-subnetworks of as many random weights.
        dimensions: d of the separation.
    """

    blocks: tuple[int, ...]
    draws: int
    widths: tuple[int, ...]
    features: int
    tickets: int
    dimensions: tuple[int, ...] = (4, 8, 16, 32)


FULL = Sizes((10, 100, 1000, 4000), 30, (128, 256, 512, 1024, 2048, 4096), 8, 100)
QUICK = Sizes((10, 100, 1000), 24, (128, 512, 2048), 5, 40)


def height(w: Tensor) -> Tensor:
    """Return h(w) = 1 where w_1 > 0, else -1/2: two sizes of readout, one of them the largest."""
    return torch.where(w[..., 0] > 0, 1.0, -0.5).double()


def _plan_neuron(quick: bool, seed: int) -> list[Key]:
    sizes = QUICK if quick else FULL
    plain = {"draws": sizes.draws, "tolerance": TOLERANCE, "seed": seed}
    data = [{"curve": "sample", "k2": k2, "k1": 200, "d": 10, "points": 20, **plain} for k2 in sizes.blocks]
    rkhs = [
        {"curve": scale, "k2": k2, "k1": 20, "d": 2, "points": 101, **plain, "draws": 4 * sizes.draws}
        for scale in ("function", "function, printed C")
        for k2 in sizes.blocks
    ]
    return [*data, *rkhs]


def _measure_neuron(key: Key) -> dict[str, Any]:
    found: dict[str, list[float]] = {"errors": [], "accuracies": [], "squares": [], "kept": []}
    x, y = _curve_of_integrals()
    prediction = y
    smallest = math.inf
    for seed in range(key["seed"] * 10**6, key["seed"] * 10**6 + key["draws"]):
        w, u = neurons.random_units(key["d"], key["k1"], key["k2"], seed)
        if key["curve"] == "sample":
            x, y = _sample(key, seed)
            values = neurons.features(w, x)
            v = neurons.readouts(values, y)
            gram = (values @ values.mT).mean(0) / key["k1"]
            smallest = min(smallest, float(torch.linalg.eigvalsh(gram)[0]))
        else:
            values, v = neurons.features(w, x), height(w) / key["k1"]
        scale = neurons.bound_printed(v) if "printed" in key["curve"] else neurons.bound(v, TOLERANCE)
        kept = neurons.keep(u, v, TOLERANCE, scale)
        prediction = neurons.predict(values, u, kept, TOLERANCE, scale)
        found["accuracies"].append(float((prediction * y > 0).double().mean()))
        if key["curve"] == "sample":
            _, spread = neurons.prediction_moments(values, v, TOLERANCE, scale)
            found["squares"].append(float(((prediction - y) / spread).square().mean()))
        else:  # the theorem's constant is any: the best one
            prediction = prediction * (prediction @ y) / (prediction @ prediction)
        found["errors"].append(float((prediction - y).abs().max()))
        found["kept"].append(int(kept.sum()))
    share = sum(found["kept"]) / (key["draws"] * key["k1"] * key["k2"])
    row = {"error": float(np.mean(found["errors"])), "share": share}
    if key["curve"] == "sample":
        return {**row, "accuracy": min(found["accuracies"]), "eigenvalue": smallest, **found}
    return {**row, "prediction": prediction.tolist(), "target": y.tolist(), **found}


def _sample(key: Key, seed: int) -> tuple[Tensor, Tensor]:
    """Return points of the sphere and labels +-1."""
    generator = torch.Generator().manual_seed(seed + 10**9)
    x = torch.randn(key["points"], key["d"], generator=generator, dtype=torch.float64)
    y = torch.randint(2, (key["points"],), generator=generator) * 2.0 - 1
    return x / x.norm(dim=1, keepdim=True), y.double()


@functools.cache
def _curve_of_integrals() -> tuple[Tensor, Tensor]:
    x = universal.lift(torch.linspace(-1, 1, 101, dtype=torch.float64))
    return x, universal.neuron_integral(height, x)


def _claims_neuron(rows: list[Row]) -> list[Claim]:
    sample, function, printed = (curve(rows, name) for name in ("sample", "function", "function, printed C"))
    claims = [
        equal("the sup error on 20 points falls like k2^-1/2", *log_slope(sample, "k2"), -0.5, tolerance=0.2),
        equal("so does that of a function of the RKHS", *log_slope(function, "k2"), -0.5, tolerance=0.2),
    ]
    squares = np.concatenate([row["squares"] for row in sample])
    off = float(squares.std(ddof=1)) / math.sqrt(len(squares))
    text = "errors have the predicted standard deviation: mean square of their ratio"
    claims.append(equal(text, float(squares.mean()), off, 1.0, tolerance=0.5))
    large = sample[-1]
    text = f"Theorem 3.4 at eps = 1/2: without scaling, every label has its sign at k2 = {large['key']['k2']}"
    claims.append(
        Claim(text, large["accuracy"] == 1, f"worst accuracy of {large['key']['draws']} draws {large['accuracy']}")
    )
    units = sum(row["key"]["draws"] * row["key"]["k1"] * row["key"]["k2"] for row in sample)
    share, off = sum(sum(row["kept"]) for row in sample) / units, math.sqrt(TOLERANCE * (1 - TOLERANCE) / units)
    claims.append(equal("the kept fraction is eps", share, off, TOLERANCE))
    text = "the features' Gram matrices have a positive least eigenvalue"
    least = min(row["eigenvalue"] for row in sample)
    claims.append(Claim(text, least > 0, f"least {least:.3g}"))
    logs = np.log(printed[-1]["errors"]) - np.log(function[-1]["errors"])
    text = "C = max |v|, as printed, lets the error stall above that of C = max |v| / (1 - eps), whatever c"
    claims.append(above(text, float(logs.mean()), float(logs.std(ddof=1)) / math.sqrt(len(logs)), 0.0, "log ratio"))
    return claims


def _plan_separation(quick: bool, seed: int) -> list[Key]:
    sizes = QUICK if quick else FULL
    keys = []
    for d in sizes.dimensions:
        for width in sizes.widths:
            keys.append(
                {"curve": "neurons", "d": d, "width": width, "weights": width * (d + 1), "draws": sizes.features}
            )
        for width in (*sizes.widths, 4 * sizes.widths[-1], 16 * sizes.widths[-1]):
            units = width * (d + 1) // (d + SECOND_LAYER)  # of the first layer, for as many random weights
            if units >= 16 * d:  # the law of small errors
                ticket = {"width": units, "weights": width * (d + 1), "draws": sizes.tickets}
                keys.append({"curve": "weights", "d": d, **ticket})
    return [key | {"seed": seed} for key in keys]


def _measure_separation(key: Key) -> dict[str, Any]:
    d = key["d"]
    target = torch.full((1, d), d**-0.5, dtype=torch.float64)
    found = []
    for seed in range(key["seed"] * 10**6, key["seed"] * 10**6 + key["draws"]):
        if key["curve"] == "neurons":
            units, _ = neurons.random_units(d, key["width"], 1, seed)
            error = errors.random_features_error(units[0], target[0])
        else:
            network = weights.random_network([d, key["width"], SECOND_LAYER, 1], seed)
            one = torch.ones(1, 1, dtype=torch.float64)
            first, second, v = weights.theorem23(network, [target, one], shared=True).compact()
            error = float(v[0, 0] ** 2 * errors.gaussian_error(first, second, target / v)[0])
        found.append(2 * error)  # E relu(<w*, x>)^2 = 1/2
    # A median: among so few output weights, one in 300 draws has none above 1/2, and no product w u reaches w* / v.
    return {"error": float(np.median(found)), "errors": found}


def _claims_separation(rows: list[Row]) -> list[Claim]:
    claims = []
    slopes: dict[int, tuple[float, float]] = {}
    for d in dict.fromkeys(row["key"]["d"] for row in rows):
        ours, theirs = ([row for row in curve(rows, name) if row["key"]["d"] == d] for name in ("weights", "neurons"))
        text = f"d = {d}: the square error of a weight-subnetwork falls like the random weights' number to the -2"
        claims.append(equal(text, *log_slope(ours, "weights"), -2.0, tolerance=0.2))
        slopes[d] = log_slope(theirs[-2:], "weights")
        total = theirs[-1]["key"]["weights"]
        (compared,) = (row for row in ours if row["key"]["weights"] == total)
        top, floor = np.log(compared["errors"]), np.log(theirs[-1]["errors"])
        off = math.sqrt(top.var(ddof=1) / len(top) + floor.var(ddof=1) / len(floor))
        text = f"d = {d}: of {total} random weights, it beats what any neuron-subnetwork can do"
        claims.append(below(text, float(top.mean() - floor.mean()), off, 0.0, "log ratio of square errors"))
    last = max(slopes)
    text = f"d = {last}: the floor of neuron-subnetworks falls slower than the random weights' number to the -1"
    return [*claims, above(text, *slopes[last], -1.0, "exponent")]


EXPERIMENTS = [
    experiment(
        "neuron",
        "Whole units kept: a sample and a function",
        _plan_neuron,
        _measure_neuron,
        pictures.neuron,
        _claims_neuron,
    ),
    experiment(
        "separation",
        "One ReLU neuron under Gaussian inputs, by units and by weights",
        _plan_separation,
        _measure_separation,
        pictures.separation,
        _claims_separation,
    ),
]
