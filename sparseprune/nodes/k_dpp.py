"""Exact samples of a k-DPP: sets of k items, the likelier the more their features differ."""

from __future__ import annotations

import torch
from torch import Tensor

_NUMBERS = 2**25  # of the samples drawn at once


def k_dpp(L: Tensor, k: int, *, seed: int, samples: int = 1) -> Tensor:
    """Draw sets Y of k of n items with P(Y) = det(L_Y) / e_k(lambda), lambda the eigenvalues of L.

    e_k is the elementary symmetric polynomial. Eigenvectors first: going down from i = n, the i-th is taken with
    probability lambda_i e_{l-1}(lambda_1 ... lambda_{i-1}) / e_l(lambda_1 ... lambda_i), where l are still to be taken;
    then items, one by one, from the projection on their span.

    Args:
        L: the likelihood kernel(s) [..., n, n], symmetric, positive semi-definite; computed in float64, the polynomials
            as logarithms: any scale will do.
        k: size of the sets, from 1 to the rank of L.
        seed: of the draws.
        samples: independent sets of each kernel.

    Returns:
        int64 [..., samples, k], each set ascending, on the device of L.

    Raises:
        ValueError: a kernel that is not one, or k or samples outside their range.

    Cost: O(n^3) a kernel, then O(n^2 k) a sample; memory for 2^25 numbers of samples in work at least.

    Reference: Kulesza & Taskar, "k-DPPs: Fixed-Size Determinantal Point Processes", ICML 2011.
    """
    if samples < 1:
        raise ValueError(f"k_dpp: samples must be at least 1, got {samples}")
    values, vectors = _spectrum(L, k)
    *batch, n = values.shape
    generator = torch.Generator().manual_seed(seed)
    at_once = max(1, _NUMBERS // max(1, values.numel() * k))
    found = []
    for some in torch.arange(samples).split(at_once):
        u = torch.rand(*batch, len(some), n + k, dtype=torch.float64, generator=generator).to(L.device)
        span = _eigenvectors(values, k, u[..., :n])
        found.append(_items(vectors, span, u[..., n:]))
    return torch.cat(found, dim=-2)


def _spectrum(L: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return eigenvalues [..., n], those within rounding of zero as zero, and eigenvectors [..., n, n]."""
    if L.dim() < 2 or L.shape[-1] != L.shape[-2] or not L.is_floating_point() or not L.numel():
        raise ValueError(f"k_dpp: L must be floating [..., n, n], got {L.dtype} {list(L.shape)}")
    rounding = L.shape[-1] * torch.finfo(L.dtype).eps
    L = L.detach().double()
    if not L.isfinite().all():
        raise ValueError("k_dpp: L must be finite, got NaN or infinity")
    largest = L.abs().amax((-1, -2))
    if ((L - L.mT).abs().amax((-1, -2)) > rounding * largest).any():
        raise ValueError("k_dpp: L must be symmetric, got a matrix that is not")
    values, vectors = torch.linalg.eigh((L + L.mT) / 2)
    floor = rounding * values.abs().amax(-1, keepdim=True)
    if (values < -floor).any():
        raise ValueError(f"k_dpp: L must be positive semi-definite, got an eigenvalue {float(values.min()):.3g}")
    values = values.masked_fill(values <= floor, 0.0)
    rank = int((values > 0).sum(-1).min())
    if not 1 <= k <= rank:
        raise ValueError(f"k_dpp: k must be from 1 to the rank of L, {rank}, got {k}")
    return values, vectors


def _eigenvectors(values: Tensor, k: int, u: Tensor) -> Tensor:
    """Choose k eigenvectors for each sample: eigenvalues [..., n], uniforms [..., S, n] -> 0/1 float64 [..., S, n]."""
    n = values.shape[-1]
    logs = values.log()
    empty = torch.full((*values.shape[:-1], k + 1), -torch.inf, dtype=torch.float64, device=values.device)
    empty[..., 0] = 0.0
    table = [empty]  # table[i][..., l] = log e_l of the first i eigenvalues
    for i in range(n):
        longer = table[-1].clone()
        longer[..., 1:] = torch.logaddexp(table[-1][..., 1:], logs[..., i, None] + table[-1][..., :-1])
        table.append(longer)
    left = torch.full(u.shape[:-1], k, device=u.device)
    taken = torch.zeros_like(u)
    for i in reversed(range(n)):
        others = table[i].gather(-1, (left - 1).clamp_min(0))
        chance = (logs[..., i, None] + others - table[i + 1].gather(-1, left)).exp()
        take = (u[..., i] < chance) & (left > 0)
        taken[..., i] = take.double()
        left = left - take.long()
    return taken


def _items(vectors: Tensor, span: Tensor, u: Tensor) -> Tensor:
    """Choose items by the chain rule: eigenvectors [..., n, n], chosen [..., S, n], uniforms [..., S, k].

    The variance of an item given those chosen is the diagonal of K = V V^T after Cholesky steps at them.
    """
    k = u.shape[-1]
    variance = span @ vectors.square().mT
    steps = variance.new_zeros((*u.shape, variance.shape[-1]))
    chosen = []
    for t in range(k):
        cumulative = variance.cumsum(-1)
        total = cumulative[..., -1:]
        at = torch.minimum(u[..., t, None] * total, total.nextafter(torch.zeros_like(total)))
        item = torch.searchsorted(cumulative, at, right=True)
        row = (vectors.take_along_dim(item, dim=-2) * span) @ vectors.mT
        before = steps[..., :t, :]
        row = row - (before.take_along_dim(item[..., None], dim=-1).mT @ before).squeeze(-2)
        steps[..., t, :] = row / variance.gather(-1, item).sqrt()
        variance = (variance - steps[..., t, :].square()).clamp_min(0.0).scatter(-1, item, 0.0)
        chosen.append(item)
    return torch.cat(chosen, dim=-1).sort(dim=-1).values
