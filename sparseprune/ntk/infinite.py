"""The tangent kernel of infinitely wide, randomly pruned ReLU nets."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..theory.random_ntk import covariances, kappa0, kappa1, theta
from ._checks import check_density, check_inputs, check_whole

# Above this, the 2^d0 masks of the inputs are drawn rather than listed.
MOST_LISTED = 16
_SAMPLES = 1024
_ELEMENTS = 2**21  # of one chunk of masks


class Estimate(NamedTuple):
    """A kernel by Monte-Carlo and the standard error of each of its numbers, both `[N1, N2]`."""

    kernel: Tensor
    standard_error: Tensor


def infinite(
    x1: Tensor,
    x2: Tensor | None = None,
    *,
    depth: int,
    density: float = 1.0,
    rescaled: bool = True,
    input_pruned: bool = False,
    samples: int | None = None,
    seed: int = 0,
) -> Tensor | Estimate:
    """Return the limit of the empirical kernel of pruned ReLU nets as their widths grow (`theory.random_ntk`).

    |x| |x'| Theta_L(cos(x, x')), times alpha^L where un-rescaled. With the input layer pruned too (alpha^{L+1}) its
    pre-activations are Gaussian only given the mask m of a unit's d0 inputs, and the first layer's covariance and
    kernel are means over m, P(m) = alpha^|m| (1 - alpha)^{d0 - |m|}.

    Args:
        x1: `[N1, d0]`, of any norm.
        x2: `[N2, d0]`; None: x1.
        depth: hidden layers L.
        density: alpha, the chance of a weight to be kept.
        rescaled: whether each pruned layer is divided by sqrt(alpha).
        input_pruned: whether the input layer is pruned; the other layers are.
        samples: masks of the inputs to draw in place of the mean over all 2^d0; from 2; only if input_pruned.
        seed: of those draws.

    Returns: `[N1, N2]` in fp64 on the inputs' device, without their graph. With input_pruned and either samples or
        d0 > 16 an `Estimate` (1024 draws where samples is None). Angles below 1e-8 count as 0: off by 1e-8 at most.
    Raises: ValueError on inputs that are not finite matrices of one width, or arguments out of range.
    Cost: 2 d0 + 12 depth operations a pair; input_pruned: that of depth 1 for every mask.
    """
    check_inputs("infinite", x1, x2)
    check_whole("infinite", "depth", depth, 1)
    check_density("infinite", density)
    if samples is not None:
        check_whole("infinite", "samples", samples, 2)
        if not input_pruned:
            raise ValueError(f"infinite: samples must be None unless input_pruned, got {samples}")
    a = x1.detach().double()
    b = a if x2 is None else x2.detach().double()
    scale = 1.0 if rescaled else density ** (depth + input_pruned)
    norms, cosine = _geometry(a, b)
    if not input_pruned:
        return scale * norms * theta(cosine, depth)
    drawn = samples is not None or a.shape[1] > MOST_LISTED
    masks = _drawn(a.shape[1], density, samples or _SAMPLES, seed) if drawn else _listed(a.shape[1], density)
    moments = _first_layer(a, b, density, *masks)
    kernel, slopes = _onward(moments[0], moments[1], norms, cosine == 1, depth)
    if not drawn:
        return scale * kernel
    covariance = moments[2:].view(2, 2, *kernel.shape) - moments[:2, None] * moments[None, :2]
    variance = (slopes[:, None] * covariance * slopes[None]).sum((0, 1)).clamp(min=0) / (len(masks[0]) - 1)
    return Estimate(scale * kernel, scale * variance.sqrt())


def _geometry(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return |x| |x'| and cos(x, x') `[..., N1, N2]`; the cosine of parallel vectors is 1 or -1 to the last bit.

    An inner product would be off by some 1e-16 there, where t' has an infinite slope: its error is the root of that.
    """
    tiny = torch.finfo(a.dtype).tiny
    lengths = [torch.linalg.vector_norm(x, dim=-1, keepdim=True) for x in (a, b)]
    u, v = (x / length.clamp(min=tiny) for x, length in zip((a, b), lengths, strict=True))
    apart, together = (torch.cdist(u, w, compute_mode="donot_use_mm_for_euclid_dist") for w in (v, -v))
    return lengths[0] * lengths[1].mT, (2 * torch.atan2(apart, together)).cos()


def _listed(inputs: int, density: float) -> tuple[Tensor, Tensor]:
    """Return all masks `[2^d0, d0]` of the inputs and their probabilities."""
    masks = (torch.arange(2**inputs)[:, None] >> torch.arange(inputs) & 1).double()
    kept = masks.sum(1)
    return masks, density**kept * (1 - density) ** (inputs - kept)


def _drawn(inputs: int, density: float, samples: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    masks = (torch.rand(samples, inputs, generator=generator) < density).double()
    return masks, torch.full((samples,), 1 / samples, dtype=masks.dtype)


def _first_layer(a: Tensor, b: Tensor, density: float, masks: Tensor, weights: Tensor) -> Tensor:
    """Return the means over masks of u = sqrt(s11 s22) t(r), v = s12 t'(r), u^2, u v, v u and v^2, `[6, N1, N2]`."""
    chunk = max(1, _ELEMENTS // max(1, len(a) * len(b), (len(a) + len(b)) * a.shape[1]))
    total = a.new_zeros(6, len(a), len(b))
    for some, chances in zip(masks.to(a.device).split(chunk), weights.to(a.device).split(chunk), strict=True):
        norms, cosine = _geometry(a * some[:, None], b * some[:, None])
        norms /= density
        u, v = norms * kappa1(cosine), norms * cosine * kappa0(cosine)
        for sums, values in zip(total, (u, v, u * u, u * v, v * u, v * v), strict=True):
            sums += torch.tensordot(chances, values, 1)
    return total


def _onward(covariance: Tensor, kernel: Tensor, norms: Tensor, parallel: Tensor, depth: int) -> tuple[Tensor, Tensor]:
    """Return the kernel from the first layer's covariance and kernel, and its slopes `[2, N1, N2]` in those two."""
    with torch.enable_grad():
        first = torch.stack([covariance, kernel]).requires_grad_()
        cosine = first[0] / torch.where(norms > 0, norms, 1.0)
        cosine = torch.where(parallel, 1.0, cosine)
        whole = norms * theta(cosine, depth - 1)
        passed = first[1]
        for value in covariances(cosine, depth - 2) if depth > 1 else []:
            passed = passed * kappa0(value)
        whole = whole + passed
        (slopes,) = torch.autograd.grad(whole.sum(), first)
    return whole.detach(), slopes
