"""Paper 001's theory: the errors of sketched masks beside their bounds, all draws by the sampler.

Reference: Bar & Giryes 2023, arXiv 2305.17559.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..results import Row, identity
from ..theory import sketching as theory
from . import _sketching_theory_pictures as pictures
from ._report import Experiment, Progress, collect
from ._sketching_theory_claims import claims

Key = dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """How much to compute.

    Args:
        samples: masks of a row.
        many: of a row where errors are skewed, or numbers within 12 % to be told apart.
        draws, steps, examples: the grids.
    """

    samples: int
    many: int
    draws: tuple[int, ...]
    steps: tuple[float, ...]
    examples: tuple[int, ...]


FULL = Sizes(4_000, 12_000, (5, 10, 20, 40, 80, 160, 320), (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5), (2, 4, 8, 16))
QUICK = Sizes(500, 3_000, (5, 20, 80, 320), (0.0, 0.1, 0.3, 0.5, 1.0), (4,))
LAWS = ("equal", "gaussian", "laplace", "log-normal(1)", "log-normal(1.5)", "log-normal(2)")
_RANDOM_WEIGHTS = 10_000  # of a share of failures


def plan(sizes: Sizes, seed: int) -> list[Key]:
    """Return the full configuration of every row."""

    def key(curve: str, mask: str = "sketch", **other: Any) -> Key:
        plain = {"law": "gaussian", "size": 100, "examples": 16, "draws": 50, "step": 0.0, "seen": "same"}
        return {"curve": curve, "mask": mask, **plain, "samples": sizes.samples, "seed": seed, **other}

    both = ("sketch", "uniform")
    eight = {"law": "line", "size": 8, "draws": 3, "samples": sizes.many}
    return [
        *[key("draws", mask, draws=draws) for mask in both for draws in sizes.draws],
        *[key("step", step=step, examples=64, samples=sizes.many) for step in sizes.steps],
        *[key("step", "uniform", step=step, examples=64) for step in sizes.steps],
        *[key("tail", mask, law=law) for law in LAWS for mask in both],
        *[key("data", seen=s, examples=n, **eight) for n in sizes.examples for s in ("same", "independent", "none")],
        *[key("given data", law="line", draws=draws, step=0.5, seen="independent") for draws in sizes.draws],
        key("Lemma 4.1", law="oracle", size=3, examples=2, draws=2, samples=sizes.many),
        *[key("network", law="tanh", size=30, examples=8, draws=draws) for draws in sizes.draws],
    ]


def weights(law: str, size: int) -> Tensor:
    """Return weights of a law, no randomness: its quantiles at (k + 1/2)/size."""
    if law == "equal":
        return torch.ones(size, dtype=torch.float64)
    if law == "line":
        return torch.linspace(0.5, 1.5, size, dtype=torch.float64)
    middle = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    if law == "laplace":
        return -(middle - 0.5).sign() * (1 - (2 * middle - 1).abs()).log()
    normal = torch.special.ndtri(middle)
    return normal if law == "gaussian" else (float(law[len("log-normal(") : -1]) * normal).exp()


def _normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _summary(errors: Tensor, exact: Tensor, bound: Tensor, printed: Tensor) -> dict[str, Any]:
    """Return the fields that all rows have; the draws' spread is that of their mean."""
    found = {"error": errors.mean(), "standard_error": errors.std() / math.sqrt(len(errors))}
    return {name: float(v) for name, v in (found | {"exact": exact, "bound": bound, "printed": printed}).items()}


def _gaussian_data(key: Key, seed: int) -> dict[str, Any]:
    """Measure a mask over Gaussian data; a uniform one is the sketch of equal weights without data."""
    w0 = weights(key["law"], key["size"])
    w = w0 + key["step"] * _normal(key["seed"], key["size"])
    n, draws, uniform = key["examples"], key["draws"], key["mask"] == "uniform"
    found_with = torch.ones_like(w0) if uniform else w0
    seen = "none" if uniform else key["seen"]
    errors = theory.monte_carlo_gaussian(w, found_with, n, draws, seen=seen, samples=key["samples"], seed=seed)
    exact = theory.theorem_44(w, found_with, n, draws, seen=seen)
    if uniform:
        bound = printed = theory.lemma_45_bound(w, draws)
    elif key["curve"] in ("step", "data"):
        bound, printed = theory.theorem_44_bound(w, w0, draws), theory.theorem_44_printed(w, w0, draws)
    else:
        bound, printed = theory.lemma_42_bound(w0, draws), theory.lemma_42_printed(w0, draws)
    row = _summary(errors, exact, bound, printed)
    if key["curve"] == "step" and not uniform:
        row["failing"] = _failing(key)
    if key["curve"] == "tail":
        row["tail"] = float(w0.square().mean() / w0.abs().mean().square())
    return row


def _failing(key: Key) -> float:
    """Return for which share of Gaussian w0 and steps the printed bound of Theorem 4.4 is below the error."""
    w0, step = _normal(key["seed"], 2, _RANDOM_WEIGHTS, key["size"])
    w = w0 + key["step"] * step
    exact = theory.theorem_44(w, w0, key["examples"], key["draws"])
    return float((exact > theory.theorem_44_printed(w, w0, key["draws"])).double().mean())


def _given_data(key: Key, seed: int) -> dict[str, Any]:
    """Measure masks of fixed data, the means of their entries and how many they keep."""
    if key["law"] == "oracle":
        w0 = w = torch.tensor([1, -1, 0.5], dtype=torch.float64)
        x = seen = torch.tensor([[1, 0], [0, 2], [1, 1]], dtype=torch.float64)
    else:
        w0 = weights(key["law"], key["size"])
        w = w0 + key["step"] * _normal(key["seed"], key["size"])
        x, seen = _normal(key["seed"], 2, key["size"], key["examples"]) / math.sqrt(key["examples"])
    draws, p = key["draws"], theory.probabilities(w0, seen)
    masks = theory.masks(p, draws, samples=key["samples"], seed=seed)
    errors = (w * (1 - masks) @ x).square().sum(1)
    bound = theory.lemma_43_bound(w, w0, x, seen, draws)
    printed = theory.lemma_41_printed(w0, x, draws) if key["law"] == "oracle" else bound
    row = _summary(errors, theory.error(w, x, p, draws), bound, printed)
    for name, values in (("mean of m", masks.mean(1)), ("kept", (masks > 0).double().sum(1))):
        row[name] = [float(values.mean()), float(values.std()) / math.sqrt(len(values))]
    return row | {"expected kept": float(theory.expected_distinct(p, draws))}


def _network(key: Key, seed: int) -> dict[str, Any]:
    """Measure Theorem 7.2: masks found at a net's initialization, on its linear features after gradient descent."""
    x, y = _normal(key["seed"], key["examples"], 5).split([4, 1], dim=1)
    theta0 = theta = _normal(key["seed"] + 1, key["size"]) / 2

    def features(theta: Tensor) -> Tensor:
        return (x @ theta[:24].view(4, 6)).tanh() @ theta[24:]

    def jacobian(theta: Tensor) -> Tensor:
        rows = torch.autograd.functional.jacobian(features, theta)
        assert isinstance(rows, Tensor)  # of one output in one input
        return rows.T

    for _ in range(20):
        theta = theta - 0.1 / len(y) * jacobian(theta) @ (features(theta) - y[:, 0])
    start, end, draws = jacobian(theta0), jacobian(theta), key["draws"]
    p = theory.probabilities(theta0, start)
    errors = theory.monte_carlo(theta, end, p, draws, samples=key["samples"], seed=seed)
    norm = max(1.0, float(start.norm()), float(end.norm()))
    distance = float((theta - theta0).norm())
    bound = theory.theorem_72_bound(theta0, start, draws, norm=norm, distance=distance)
    least = {"radius": distance / 3, "eigenvalue": norm}  # D = 3 K R_0 / lambda_min
    printed = theory.theorem_72_printed(theta0, start, draws, norm=norm, **least)
    return _summary(errors, theory.error(theta, end, p, draws), bound, printed)


_MEASURES = {"given data": _given_data, "Lemma 4.1": _given_data, "network": _network}


def rows(
    *, out: Path, quick: bool, data_dir: Path | None = None, progress: Progress | None = None, seed: int = 0
) -> list[Row]:
    """Measure every row of the plan; see `Rows`. Each has its own random numbers."""

    def compute(key: Key) -> dict[str, Any]:
        return _MEASURES.get(key["curve"], _gaussian_data)(key, zlib.crc32(identity(key).encode()))

    return collect(out / "theory.jsonl", plan(QUICK if quick else FULL, seed), compute, progress)


EXPERIMENT = Experiment("theory", "The error of a sketched mask beside its bounds", rows, pictures.panels, claims)
EXPERIMENTS: dict[str, Experiment] = {EXPERIMENT.name: EXPERIMENT}
