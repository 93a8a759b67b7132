"""The sampler beside what users do today: torch.multinomial's pipeline, numpy's multinomial, kthvalue."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sparseprune import sampling

from .measure import Row, side_by_side

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


def law_holds(w: Tensor, draws: int) -> bool:
    """The draws of GROUPS equal pieces, sorted by score, against their exact shares: within 6 standard deviations."""
    counts = sampling.multinomial(w, draws, seed=0, transform="abs", output="counts")
    assert isinstance(counts, Tensor)
    order = w.abs().argsort()
    share = w.abs().double()[order].view(GROUPS, -1).sum(1) / w.abs().double().sum()
    drawn = counts.double()[order].view(GROUPS, -1).sum(1)
    z = (drawn - draws * share) / (draws * share * (1 - share)).sqrt()
    return int(counts.sum()) == draws and float(z.abs().max()) < 6


def sketch(size: int, fraction: float, repeats: int, device: str = "cpu") -> list[Row]:
    w = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(device)
    draws, out = round(fraction * size), torch.empty_like(w)
    peers = {"torch.multinomial pipeline (w m)": lambda: torch_pipeline(w, draws, out)}
    if device == "cpu":
        array, generator = w.numpy(), np.random.default_rng(0)
        peers["numpy Generator.multinomial (counts alone)"] = lambda: numpy_counts(array, draws, generator)
        peers["floor: torch.mul(a, b, out=c)"] = lambda: torch.mul(w, w, out=out)

    def ours() -> None:
        sampling.multinomial(w, draws, seed=1, transform="abs", output="weights", out=out)

    case = f"d = {size}, s = {fraction} d, p ~ |w|, result w m into a given output, {device}"
    return side_by_side("sketch_multinomial", case, ours, peers, lambda: law_holds(w, draws), repeats)


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
        *sketch(size, 1.0, max(1, repeats // 2), device),
        *select(size, 0.1, repeats, device),
        *sketch(small, 0.1, 10 * repeats, device),
        *select(small, 0.1, 10 * repeats, device),
    ]
