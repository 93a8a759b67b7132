"""Paper 002, strong lottery tickets: weight-subnetworks, Lemmas 2.4 and 2.5, Theorems 2.3 and 2.1.

Reference: Malach et al., ICML 2020 (arXiv 2002.00585). The paper has no numerical experiment: sizes and numbers beside
ours are the specification's.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..results import Row
from ..theory.lottery import errors as theory
from ..theory.lottery import products, universal, weights
from . import _lottery_pictures as pictures
from . import lottery_neurons
from ._lottery_rows import experiment, success
from ._report import Claim, curve
from ._statistics import agree, below, equal, log_slope

Key = dict[str, Any]
DELTA = 0.05


@dataclass(frozen=True)
class Sizes:
    """How much to compute.

    Args:
        units: k of Lemma 2.4, `draws` of each.
        blocks: k1 / n and k2 / n of Theorem 2.3; layers: k of Theorem 2.1; `networks` of each.
        trials: networks of a width meant to succeed.
    """

    units: tuple[int, ...]
    draws: int
    blocks: tuple[tuple[int, int], ...]
    layers: tuple[int, ...]
    networks: int
    trials: int


FULL = Sizes(
    tuple(2**k for k in range(6, 17, 2)), 1000, ((200, 20), (1000, 100), (5000, 500)), (64, 256, 1024, 4096), 20, 1000
)
QUICK = Sizes(tuple(2**k for k in range(6, 13, 2)), 400, ((200, 20), (600, 60), (1500, 150)), (64, 256, 1024), 32, 300)


def sine(t: Tensor) -> Tensor:
    """Return sin(pi t), the function of the picture."""
    return (math.pi * t).sin()


def _plan_lemma24(sizes: Sizes, seed: int) -> list[Key]:
    chances = [(0.3, 0.05), (0.1, 0.05), (0.0, 0.05), (0.5, 0.01), (0.3, 0.01)]
    plain = {"dimension": 1, "seed": seed}
    return [
        *[
            {"curve": route, "alpha": alpha, "units": units, "draws": sizes.draws, **plain}
            for route, alphas in (("product", (0.3, 0.1, 0.02)), ("printed", (0.3, 0.1)))
            for alpha in alphas
            for units in sizes.units
        ],
        *[
            {"curve": "chance", "alpha": alpha, "tolerance": eps, "draws": 1000 * sizes.draws, **plain}
            for alpha, eps in chances
        ],
        *[_sized(alpha, eps, 1, 2, sizes.trials, seed) for alpha, eps in ((0.3, 0.05), (0.3, 0.01), (0.5, 0.01))],
        *[_sized(d**-0.5, 0.1 / d, d, 2 * d, sizes.trials, seed) for d in (10, 16, 50)],
    ]


def _sized(alpha: float, tolerance: float, dimension: int, sides: int, draws: int, seed: int) -> Key:
    units = products.width(alpha, tolerance, DELTA, sides)
    key = {"curve": "sized", "alpha": alpha, "tolerance": tolerance, "units": units, "draws": draws}
    return {**key, "dimension": dimension, "seed": seed}


def _measure_lemma24(key: Key) -> dict[str, Any]:
    alpha, draws = key["alpha"], key["draws"]
    generator = torch.Generator().manual_seed(key["seed"])
    if key["curve"] == "chance":
        u, w = torch.empty(2, draws, dtype=torch.float64).uniform_(-1, 1, generator=generator)
        hits = int(((u > 0) & ((u * w - alpha).abs() <= key["tolerance"])).sum())
        return {"hits": hits, "share": hits / draws, "claimed": products.hit_probability(alpha, key["tolerance"])}
    found = _row_errors(key, generator)
    row = {"errors": found.tolist(), "median": float(found.median())}
    if key["curve"] == "sized":
        wins = int((found <= key["tolerance"] * key["dimension"]).sum())
        return {**row, "wins": wins, "share": wins / draws}
    return {**row, "k median": key["units"] * row["median"]}


def _row_errors(key: Key, generator: torch.Generator) -> Tensor:
    """Return the sup errors over ||x||_inf <= 1 of draws of a row of target weights +-alpha, a block of units each."""
    dimension, units = key["dimension"], key["units"]
    chunk = max(1, 2**21 // (dimension * units))  # draws at a time, for the memory
    found = []
    for start in range(0, key["draws"], chunk):
        shape = (min(chunk, key["draws"] - start), dimension, units)
        u, w = torch.empty(2, *shape, dtype=torch.float64).uniform_(-1, 1, generator=generator)
        signs = torch.randint(2, shape[:2], generator=generator) * 2 - 1
        target = key["alpha"] * signs.double()
        chosen = weights.search(u, w, target, printed=key["curve"] == "printed")
        # Each pair is a layer of one input: its sup error is the coordinate's, and over the cube they add up.
        pair = w.gather(-1, chosen).unsqueeze(-1), u.gather(-1, chosen).unsqueeze(-2)
        found.append(theory.linear_error(*pair, target[..., None, None], math.inf).sum((1, 2)))
    return torch.cat(found)


def _claims_lemma24(rows: list[Row]) -> list[Claim]:
    claims = []
    for route, text, power, rival in (
        ("product", "Lemma 2.4 by the product u w: the sup error falls like 1/k", -1.0, -0.5),
        (
            "printed",
            "Lemma 2.4 by w near alpha and u near 1, as in the paper: like 1/sqrt(k), hence k ~ eps^-2",
            -0.5,
            -1.0,
        ),
    ):
        slopes = [log_slope(some, "units") for some in _by(_wide(curve(rows, route)), "alpha")]
        worst = max(slopes, key=lambda pair: abs(pair[0] - power))
        claims.append(equal(text, *worst, power, rival=rival))
    wide = _wide(curve(rows, "product"))
    law = [products.median_error(row["key"]["alpha"], row["key"]["units"]) for row in wide]
    # The law of x = k e ln(1/|alpha|) / 2 is (1 - exp(-x))^2: a median of N draws is off by 0.983 / sqrt N of it.
    off = [0.983 * value / math.sqrt(row["key"]["draws"]) for row, value in zip(wide, law, strict=True)]
    text = "the median of the best of k is 2.456 / (k ln(1 / |alpha|))"
    claims.append(agree(text, [row["median"] for row in wide], law, off))
    some = curve(rows, "chance")
    claimed = [row["claimed"] for row in some]
    off = [math.sqrt(p * (1 - p) / row["key"]["draws"]) for row, p in zip(some, claimed, strict=True)]
    text = "P(u > 0, |u w - alpha| <= eps) = (G(alpha + eps) - G(alpha - eps)) / 2"
    claims.append(agree(text, [row["share"] for row in some], claimed, off))
    some = [row for row in curve(rows, "sized") if row["key"]["dimension"] == 1]
    chances = [products.success_probability(*(row["key"][x] for x in ("alpha", "tolerance", "units"))) for row in some]
    off = [math.sqrt(p * (1 - p) / row["key"]["draws"]) for row, p in zip(some, chances, strict=True)]
    text = f"k = ln(2 / delta) / p succeed with chance 1 - 2 (1 - p)^k + (1 - 2 p)^k >= {1 - DELTA}"
    claims.append(agree(text, [row["share"] for row in some], chances, off))
    for row in curve(rows, "sized"):
        key = row["key"]
        if key["dimension"] > 1:
            text = f"Lemma 2.5, d = {key['dimension']}: {key['units']} units a weight give an error <= 0.1"
            claims.append(success(f"{text} with chance {1 - DELTA}", row["wins"], key["draws"], 1 - DELTA))
    return claims


def _wide(rows: list[Row]) -> list[Row]:
    """Return the rows of many units: the laws are those of small errors."""
    return [row for row in rows if row["key"]["units"] >= 1000]


def _by(rows: list[Row], name: str) -> list[list[Row]]:
    return [[row for row in rows if row["key"][name] == value] for value in dict.fromkeys(r["key"][name] for r in rows)]


def _plan_theorem23(sizes: Sizes, seed: int) -> list[Key]:
    plain = {"d": 8, "n": 4, "networks": sizes.networks, "eps": None, "seed": seed}
    keys = [{"curve": "product", "k1": k1, "k2": k2, **plain} for k1, k2 in sizes.blocks]
    keys += [{"curve": route, "k1": k1, "k2": 20, **plain} for route in ("few", "printed") for k1, _ in sizes.blocks]
    # Half of eps for the inner maps, half for v_l; likewise delta. The second is the paper's route: any v* has it.
    d, n, eps = 2, 2, 0.25
    units = products.width(d**-0.5, eps / (2 * n * math.sqrt(d)), DELTA / 2, 2 * d * n)
    k2 = math.ceil(math.log(2 * n / DELTA) * 4 * n / eps)
    sized = {"d": d, "n": n, "networks": sizes.trials, "eps": eps, "seed": seed}
    keys.append({"curve": "sized", "k1": d * units, "k2": k2, **sized})
    demo = {"d": 2, "n": 9, "networks": 1, "eps": None, "seed": seed}
    return [*keys, *[{"curve": "universal", "k1": k1, "k2": 20, **demo} for k1 in (40, 200, 4000)]]


def _measure_theorem23(key: Key) -> dict[str, Any]:
    if key["curve"] == "universal":
        return _measure_universal(key)
    d, n = key["d"], key["n"]
    return _measure_networks(
        key,
        [d, n, 1],
        [d, n * key["k1"], n * key["k2"], 1],
        lambda network, target: weights.theorem23(network, target, printed=key["curve"] == "printed"),
        theory.certificate23,
    )


def _measure_networks(
    key: Key,
    target_sizes: list[int],
    sizes: list[int],
    prune: Callable[[list[Tensor], list[Tensor]], weights.Ticket],
    certify: Callable[[list[Tensor], list[Tensor]], float],
) -> dict[str, Any]:
    """Return what tickets of `networks` random pairs of target and network are like."""
    found: dict[str, list[Any]] = {"errors": [], "bounds": [], "active": []}
    untouched = True
    for seed in range(key["seed"] * 10**6, key["seed"] * 10**6 + key["networks"]):
        target, network = weights.random_target(target_sizes, 2 * seed), weights.random_network(sizes, 2 * seed + 1)
        before = [weight.clone() for weight in network]
        ticket = prune(network, target)
        untouched &= all(torch.equal(a, b) for a, b in zip(ticket.network, before, strict=True))
        compact = ticket.compact()
        found["errors"].append(theory.searched_error(compact, target, 10_000, seed))
        found["bounds"].append(certify(compact, target))
        found["active"].append(sum(ticket.active))
    weights_there = sum(a * b for a, b in itertools.pairwise(sizes))
    wins = sum(bound <= key["eps"] for bound in found["bounds"]) if key["eps"] else None
    # A median: a target of which a layer never fires is 0 everywhere, and so is its ticket.
    ranges = {"error": statistics.median(found["errors"]), "least": min(found["errors"]), "most": max(found["errors"])}
    counts = {"kept": found["active"][0], "of": weights_there, "untouched": untouched, "certified": wins}
    return {**ranges, **counts, **found}


def _measure_universal(key: Key) -> dict[str, Any]:
    target, factor = universal.interpolant(sine, key["n"] - 1)
    network = weights.random_network([2, key["n"] * key["k1"], key["n"] * key["k2"], 1], key["seed"])
    ticket = weights.theorem23(network, target)
    t = torch.linspace(-1, 1, 401, dtype=torch.float64)
    there, wanted = (factor * weights.forward(net, universal.lift(t))[:, 0] for net in (ticket.compact(), target))
    off = float((there - sine(t)).abs().max())
    return {
        "error": off,
        "kept": sum(ticket.active),
        "t": t.tolist(),
        "ticket": there.tolist(),
        "target": wanted.tolist(),
    }


def _claims_networks(rows: list[Row], name: str, count: Callable[[Key], int], size: str) -> list[Claim]:
    """Judge what Theorems 2.3 and 2.1 share: counts, weights, certificates, slope, success."""
    some = [row for row in rows if "bounds" in row]
    off = [active - count(row["key"]) for row in some for active in row["active"]]
    apart = [bound - error for row in some for bound, error in zip(row["bounds"], row["errors"], strict=True)]
    text = f"{name}: active weights, counted"
    claims = [
        Claim(text, not any(off), f"{len(off)} tickets, {sum(map(bool, off))} off the count"),
        Claim("no weight is touched", all(row["untouched"] for row in some), f"bits compared in {len(off)} networks"),
        Claim("no point has an error above its certificate", min(apart) > -1e-12, f"closest {min(apart):.2g}"),
    ]
    for some in _by(curve(rows, "product"), "depth" if "depth" in rows[0]["key"] else "n"):
        what = f"depth {some[0]['key']['depth']}: " if "depth" in some[0]["key"] else ""
        claims.append(equal(f"{what}the error falls like 1/k", *log_slope(some, size), -1.0, tolerance=0.2))
    (sized,) = curve(rows, "sized")
    key = sized["key"]
    text = f"at the width of the union bound the sup error is <= {key['eps']} with chance {1 - DELTA}"
    return [*claims, success(f"{text}, certified", sized["certified"], key["networks"], 1 - DELTA)]


def _claims_theorem23(rows: list[Row]) -> list[Claim]:
    claims = _claims_networks(rows, "exactly 4 d n + n", lambda key: 4 * key["d"] * key["n"] + key["n"], "k1")
    ours, theirs = (curve(rows, route)[-1] for route in ("few", "printed"))
    logs = torch.tensor(ours["errors"]).log() - torch.tensor(theirs["errors"]).log()
    text = "of k2/n = 20, making (v*/v_l) w* before v_l, exact by homogeneity, beats making w* before v_l near v*"
    claims.append(below(text, float(logs.mean()), float(logs.std()) / math.sqrt(len(logs)), 0.0, "log ratio of errors"))
    first, *_, last = curve(rows, "universal")
    t = torch.tensor(last["t"], dtype=torch.float64)
    own = float((torch.tensor(last["target"], dtype=torch.float64) - sine(t)).abs().max())
    found = f"{first['error']:.2g} at k1/n = {first['key']['k1']}, {last['error']:.2g} at {last['key']['k1']}"
    text = "tickets approximate sin(pi t), up to twice its interpolant's error"
    return [*claims, Claim(text, last["error"] <= 2 * own, f"{found}; the interpolant's {own:.2g}")]


def _plan_theorem21(sizes: Sizes, seed: int) -> list[Key]:
    plain = {"d": 4, "n": 4, "networks": sizes.networks, "eps": None, "seed": seed}
    keys = [{"curve": "product", "depth": depth, "k": k, **plain} for depth in (2, 3, 4) for k in sizes.layers]
    d, n, depth, eps = 3, 3, 3, 0.3
    tolerance = theory.layer_tolerance(eps, depth, n) / math.sqrt(n)
    k = products.width(n**-0.5, tolerance, DELTA, 2 * _parameters(d, n, depth))
    sized = {"d": d, "n": n, "networks": sizes.trials, "eps": eps, "seed": seed}
    return [*keys, {"curve": "sized", "depth": depth, "k": k, **sized}]


def _parameters(d: int, n: int, depth: int) -> int:
    """Return the target's weights, d n + n^2 (l - 2) + n."""
    return d * n + n * n * (depth - 2) + n


def _measure_theorem21(key: Key) -> dict[str, Any]:
    target = [key["d"], *[key["n"]] * (key["depth"] - 1), 1]
    sizes = [key["d"]]
    for inputs, outputs in itertools.pairwise(target):
        sizes += [inputs * outputs * key["k"], outputs]
    return _measure_networks(key, target, sizes, weights.theorem21, theory.certificate21)


def _claims_theorem21(rows: list[Row]) -> list[Claim]:
    name = "exactly 4 (d n + n^2 (l - 2) + n)"
    return _claims_networks(rows, name, lambda key: 4 * _parameters(key["d"], key["n"], key["depth"]), "k")


def _sizes(quick: bool) -> Sizes:
    return QUICK if quick else FULL


EXPERIMENTS = {
    one.name: one
    for one in (
        experiment(
            "lemma24",
            "One weight, and a row of them, from random pairs",
            lambda quick, seed: _plan_lemma24(_sizes(quick), seed),
            _measure_lemma24,
            pictures.lemma24,
            _claims_lemma24,
        ),
        experiment(
            "theorem23",
            "A two-layer network inside a random one of three layers",
            lambda quick, seed: _plan_theorem23(_sizes(quick), seed),
            _measure_theorem23,
            pictures.theorem23,
            _claims_theorem23,
        ),
        experiment(
            "theorem21",
            "A network of depth l inside a random one of depth 2 l",
            lambda quick, seed: _plan_theorem21(_sizes(quick), seed),
            _measure_theorem21,
            pictures.theorem21,
            _claims_theorem21,
        ),
        *lottery_neurons.EXPERIMENTS,
    )
}
