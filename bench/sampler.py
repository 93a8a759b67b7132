"""The sampler beside what users do today: torch.multinomial's pipeline, numpy's multinomial, kthvalue."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from sparseprune import sampling
from sparseprune.measure import Row, side_by_side

GROUPS = 64


def torch_pipeline(w: Tensor, draws: int, out: Tensor) -> None:
    p = w.abs()
    p = p / p.sum()
    counts = torch.bincount(torch.multinomial(p, draws, replacement=True), minlength=p.numel())
    torch.mul(w, counts / (draws * p), out=out)


def numpy_counts(w: np.ndarray, draws: int, generator: np.random.Generator) -> np.ndarray:
    p = np.abs(w).astype(np.float64)
    return generator.multinomial(draws, p / p.sum())


def kthvalue_pipeline(w: Tensor, k: int, out: Tensor) -> None:
    score = w.abs()
    threshold = score.kthvalue(score.numel() - k).values
    torch.mul(w, score > threshold, out=out)


def unbiased(w: Tensor, wm: Tensor, draws: int) -> bool:
    """Sums of w m over GROUPS pieces, sorted by score, within 6 of multinomial's standard deviations of those of w."""
    order = w.abs().argsort()
    truth, found = (t.abs().double()[order].view(GROUPS, -1).sum(1) for t in (w, wm))
    return float(((found - truth) / (truth * truth.sum() / draws).sqrt()).abs().max()) < 6


def floor(w: Tensor, out: Tensor) -> dict[str, Callable[[], object]]:
    return {"floor: torch.mul(a, b, out=c)": lambda: torch.mul(w, w, out=out)}


def sketch(size: int, fraction: float, repeats: int, device: str = "cpu") -> list[Row]:
    w = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(device)
    draws, out, theirs = round(fraction * size), torch.empty_like(w), torch.empty_like(w)
    peers: dict[str, Callable[[], object]] = {
        "torch.multinomial pipeline (w m)": lambda: torch_pipeline(w, draws, theirs)
    }
    if device == "cpu":
        array, generator = w.numpy(), np.random.default_rng(0)
        peers["numpy Generator.multinomial (counts alone)"] = lambda: numpy_counts(array, draws, generator)
        peers |= floor(w, theirs)

    def ours() -> None:
        sampling.multinomial(w, draws, seed=1, transform="abs", output="weights", out=out)

    case = f"d = {size}, s = {fraction} d, p ~ |w|, result w m into a given output, {device}"
    return side_by_side("sketch_multinomial", case, ours, peers, lambda: unbiased(w, out, draws), repeats)


def poisson_pipeline(w: Tensor, draws: int, out: Tensor) -> None:
    mean = w.abs()
    mean = mean * (draws / mean.sum())
    torch.mul(w, torch.poisson(mean) / mean, out=out)


def bernoulli_pipeline(w: Tensor, rate: float, out: Tensor) -> None:
    """The rate is given: finding it is not counted."""
    p = (w.abs() * rate).clamp(max=1.0)
    torch.mul(w, torch.bernoulli(p) / p, out=out)


def priority_pipeline(w: Tensor, k: int, out: Tensor) -> None:
    score = w.abs()
    key = score / torch.rand_like(score)
    tau = key.kthvalue(key.numel() - k).values
    torch.mul(w, torch.where(key > tau, (tau / score).clamp(min=1.0), 0.0), out=out)


def successive_pipeline(w: Tensor, k: int, out: Tensor) -> None:
    out.zero_()
    kept = torch.multinomial(w.abs(), k, replacement=False)
    out[kept] = w[kept]


def methods(size: int, fraction: float, repeats: int, device: str = "cpu") -> list[Row]:
    """The other laws beside what one would write in torch for them."""
    w = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(device)
    k, out, theirs = round(fraction * size), torch.empty_like(w), torch.empty_like(w)
    rate = fraction * math.sqrt(math.pi / 2)  # E c |w| = fraction; no |w| here comes near 1/c
    peers: dict[str, tuple[str, Callable[[], object]]] = {
        "poisson": ("torch.poisson pipeline", lambda: poisson_pipeline(w, k, theirs)),
        "systematic": ("none", lambda: None),
        "bernoulli": ("torch.bernoulli pipeline, its rate given", lambda: bernoulli_pipeline(w, rate, theirs)),
        "priority": ("rand, kthvalue pipeline", lambda: priority_pipeline(w, k, theirs)),
        "without_replacement": ("torch.multinomial(replacement=False)", lambda: successive_pipeline(w, k, theirs)),
    }
    rows = []
    for name, (peer, run) in peers.items():
        sampler = getattr(sampling, name)

        def ours(sampler: Callable[..., object] = sampler) -> None:
            sampler(w, k, seed=1, transform="abs", output="weights", out=out)

        def right(name: str = name) -> bool:
            return int(out.count_nonzero()) == k if name == "without_replacement" else unbiased(w, out, k)

        case = f"d = {size}, {fraction} d kept or drawn, by |w|, result w m (or masked w) into a given output, {device}"
        compared = floor(w, theirs) if peer == "none" else {peer: run, **floor(w, theirs)}
        rows += side_by_side(name, case, ours, compared, right, repeats)
    return rows


def select(size: int, fraction: float, repeats: int, device: str = "cpu") -> list[Row]:
    w = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(device)
    k, out, theirs = round(fraction * size), torch.empty_like(w), torch.empty_like(w)

    def ours() -> None:
        sampling.top_k(w, k, transform="abs", output="weights", out=out)

    def agree() -> bool:
        ours()
        kthvalue_pipeline(w, k, theirs)
        differ = (out != 0) != (theirs != 0)  # the peer drops all ties at the threshold
        threshold = out[out != 0].abs().min()
        return int((out != 0).sum()) == k and bool((w[differ].abs() == threshold).all())

    peers = {"abs, kthvalue, compare, multiply": lambda: kthvalue_pipeline(w, k, theirs)}
    case = f"d = {size}, k = {fraction} d of |w|, result masked weights into a given output, {device}"
    return side_by_side("top_k", case, ours, peers, agree, repeats)


def rows(repeats: int = 7, device: str = "cpu") -> list[Row]:
    size = 1 << 24
    small = 1 << 12  # the losing region starts where calls cost more than the work
    return [
        *sketch(size, 0.1, repeats, device),
        *sketch(size, 0.01, max(1, repeats // 2), device),
        *sketch(size, 1.0, max(1, repeats // 2), device),
        *select(size, 0.1, repeats, device),
        *methods(size, 0.1, repeats, device),
        *sketch(small, 0.1, 10 * repeats, device),
        *select(small, 0.1, 10 * repeats, device),
    ]
