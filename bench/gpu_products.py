"""Products on a GPU beside cuBLAS, cuDNN, cuSPARSE (torch CSR) and torch's BSR, over the same registry as on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from sparseprune import ops
from sparseprune.measure import Row
from sparseprune.speeds import random_mask

from . import cases, peers
from .contest import Contest, close
from .products import DTYPES, conv, linear_forward, linear_step

DENSITIES = (0.2, 0.1, 0.05, 0.02)
ROWS = (16, 256, 4096)  # of the input of a masked layer: few (bound by memory), and many


def masked_linear(case: cases.Linear, density: float, dtype: torch.dtype, repeats: int, device: str) -> list[Row]:
    """The mask applied where the weight is read, beside a product that is made first."""
    contest = Contest("masked_linear", f"{case}, {DTYPES[dtype]}, {device}")
    weight = torch.randn(case.outputs, case.inputs, device=device).to(dtype)
    mask = random_mask(weight.shape, density).to(device)
    x = torch.randn(case.batch, case.inputs, device=device).to(dtype)
    contest.calls["ours"] = lambda: ops.masked_linear(x, weight, mask)
    contest.calls["F.linear(x, w * m)"] = lambda: F.linear(x, weight * mask)
    contest.calls["F.linear(x, w)"] = lambda: F.linear(x, weight)
    agrees = close(contest.calls["ours"](), contest.calls["F.linear(x, w * m)"](), case.inputs)
    for peer in ("F.linear(x, w * m)", "F.linear(x, w)"):
        contest.set_beside("ours", [peer], agrees, density=density)
    return contest.rows(repeats)


def masked_conv2d(case: cases.Conv, density: float, dtype: torch.dtype, repeats: int, device: str) -> list[Row]:
    contest = Contest("masked_conv2d", f"{case}, {DTYPES[dtype]}, {device}")
    layer = nn.Conv2d(case.channels, case.filters, case.kernel, bias=False, device=device).to(dtype)
    weight, mask = layer.weight.detach(), random_mask(layer.weight.shape, density).to(device)
    x = torch.randn(case.batch, case.channels, case.side, case.side, device=device).to(dtype)
    turned, turned_weight = (t.contiguous(memory_format=torch.channels_last) for t in (x, weight))
    kernel, stride, pad = (case.kernel,) * 2, (case.stride,) * 2, case.padding
    geometry = ops.Geometry(kernel, stride, (pad,) * 4, (1, 1), 1)
    contest.calls["ours"] = lambda: ops.masked_conv2d(x, weight, mask, geometry)
    contest.calls["NCHW"] = lambda: F.conv2d(x, weight * mask, None, case.stride, pad)
    contest.calls["channels_last"] = lambda: F.conv2d(turned, turned_weight * mask, None, case.stride, pad)
    agrees = close(contest.calls["ours"](), contest.calls["NCHW"](), mask[0].numel())
    contest.set_beside("ours", ["NCHW", "channels_last"], agrees, density=density, peer="F.conv2d(x, w * m)")
    return contest.rows(repeats)


def blocks(
    case: cases.Linear, size: int, densities: Sequence[float], dtype: torch.dtype, repeats: int, device: str
) -> list[Row]:
    """Block-sparse products beside torch's BSR and the dense one."""
    contest = Contest("block_spmm", f"{case}, blocks of {size}, {DTYPES[dtype]}, {device}")
    weight = torch.randn(case.outputs, case.inputs, device=device).to(dtype)
    x = torch.randn(case.inputs, case.batch, device=device).to(dtype)
    tiles = weight.view(case.outputs // size, size, -1, size).transpose(1, 2)
    contest.calls["dense W @ X"] = lambda: weight @ x
    for density in densities:
        mask = random_mask(tiles.shape[:2], density).to(device)
        kept = (tiles * mask[..., None, None]).transpose(1, 2).reshape(weight.shape)
        pattern, values, theirs = ops.Pattern.from_mask(mask), tiles[mask].contiguous(), peers.bsr(kept, size)
        ours, named = f"ours {density}", contest.offer(f"torch BSR @ X {density}", lambda theirs=theirs: theirs @ x)
        contest.calls[ours] = lambda pattern=pattern, values=values: ops.block_spmm(pattern, values, x)
        agrees = close(contest.calls[ours](), kept @ x, case.inputs)
        for peer in ("dense W @ X", *named):
            contest.set_beside(ours, [peer], agrees, density=density)
    return contest.rows(repeats)


def suites(
    repeats: int = 5,
    device: str = "cuda",
    linear: Sequence[cases.Linear] = cases.GPU_LINEAR,
    images: Sequence[cases.Conv] = cases.GPU_CONV,
    in_blocks: Sequence[tuple[cases.Linear, int]] = cases.GPU_BLOCKS,
) -> Iterator[Callable[[], list[Row]]]:
    """One call a case, so that one that fails leaves the others."""
    for case in linear:
        for dtype in DTYPES:
            yield partial(linear_forward, case, DENSITIES, repeats, None, device, dtype)
            for batch in ROWS:
                yield partial(masked_linear, case._replace(batch=batch), 0.1, dtype, repeats, device)
        yield partial(linear_step, case, (0.1, 0.05), repeats, None, device)
    for image in images:
        for work in ("forward", "forward + backward"):
            yield partial(conv, image, (0.1, 0.05), repeats, work, None, device)
        for dtype in DTYPES:
            yield partial(masked_conv2d, image, 0.1, dtype, repeats, device)
    for case, size in in_blocks:
        for dtype in DTYPES:
            yield partial(blocks, case, size, (0.5, 0.1), dtype, repeats, device)
