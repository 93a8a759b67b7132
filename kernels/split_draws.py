"""Draws per tile: a binary heap of exact binomials, one launch a level."""

from __future__ import annotations

from itertools import pairwise

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._philox import NODE, key, philox, unsigned, words
from ._vector import launch

CHUNK = tl.constexpr(1 << 14)  # trials of one program
CALLS = tl.constexpr(1 << 7)  # Philox calls of 128 bits for as many trials


@triton.jit
def count_ones(h, node, plane, left, k0, k1, stream):
    """Ones among the first `left` bits of the calls 128 h, 128 h + 1, ... of a node in one bit plane."""
    call = tl.arange(0, CALLS)
    c3 = (plane * 256 + NODE).to(tl.uint32)
    w0, w1, w2, w3 = philox((h * CALLS + call).to(tl.uint32), node.to(tl.uint32), stream, c3, k0, k1)
    rest = left - call * 128
    ones = ones_below(w0, w1, rest) + ones_below(w2, w3, rest - 64)
    return tl.sum(ones.to(tl.int64), axis=0)


@triton.jit
def ones_below(low, high, n):
    """Ones among the first n bits of two words (all 64 for n >= 64, none for n <= 0)."""
    x = low.to(tl.uint64) | (high.to(tl.uint64) << 32)
    n = tl.minimum(tl.maximum(n, 0), 64)
    x = tl.where(n > 0, x << ((64 - n) & 63).to(tl.uint64), 0)
    x = x - ((x >> 1) & 0x5555555555555555)
    x = (x & 0x3333333333333333) + ((x >> 2) & 0x3333333333333333)
    return (((x + (x >> 4)) & 0x0F0F0F0F0F0F0F0F) * 0x0101010101010101) >> 56


@triton.jit(do_not_specialize=["level", "k0", "k1", "stream"])
def split_draws_kernel(draws, ends, whole, parts, below, level, k0, k1, stream):
    # Program p serves chunk h of the node whose chunks end after p: `ends` holds the running number of chunks.
    p = tl.program_id(0).to(tl.int64)
    nodes = tl.full([], 1, tl.int64) << level
    if p < tl.load(ends + nodes - 1):
        i = tl.zeros([], tl.int64)
        step = nodes >> 1
        while step > 0:
            i += tl.where(tl.load(ends + i + step - 1) <= p, step, 0)
            step = step >> 1
        n = tl.load(draws + i)
        h = p - (tl.load(ends + i) - ((n + CHUNK - 1) // CHUNK))
        trials = tl.minimum(n - h * CHUNK, CHUNK)
        total, part = tl.load(whole + i), tl.load(parts + 2 * i)
        result = tl.where(part == total, trials, 0)
        a = tl.where(part == total, 0, part)
        left = trials
        plane = tl.zeros([], tl.int32)
        low, high, third = unsigned(k0), unsigned(k1), unsigned(stream)
        while (left > 0) & (a > 0):
            a = a * 2
            bit = a >= total
            a = tl.where(bit, a - total, a)
            ones = count_ones(h, nodes + i, plane, left, low, high, third)
            result += tl.where(bit, ones, 0)
            left = tl.where(bit, left - ones, ones)
            plane += 1
        tl.atomic_add(below + 2 * i, result, sem="relaxed")
        tl.atomic_add(below + 2 * i + 1, trials - result, sem="relaxed")


def heap(leaves: Tensor) -> list[Tensor]:
    """Sums over the nodes of a binary heap, level by level from the root."""
    depth = (len(leaves) - 1).bit_length()
    levels = [torch.cat([leaves, leaves.new_zeros((1 << depth) - len(leaves))])]
    while len(levels[0]) > 1:
        levels.insert(0, levels[0].view(-1, 2).sum(dim=1))
    return levels


def split_draws(aligned: Tensor, wanted: Tensor, draws: int, seed: int, stream: int) -> Tensor:
    """Draws per tile, int64 [T]: multinomial(draws, A_b / A) by a binary heap of exact binomials.

    `wanted`: empty, or a flag a tile; others come out 0, and nothing is drawn below a node without a wanted tile.
    """
    wants = heap(wanted.to(torch.int64)) if wanted.numel() else None
    n = aligned.new_full((1,), draws)
    for level, (whole, parts) in enumerate(pairwise(heap(aligned))):
        n = n if wants is None else n.where(wants[level] > 0, 0)
        ends = ((n + (CHUNK.value - 1)) // CHUNK.value).cumsum(0)
        most = min(draws, (draws // CHUNK.value) + (1 << level))  # chunks, known without asking the device
        below = torch.zeros_like(parts)
        launch(split_draws_kernel, most, n, ends, whole, parts, below, level, *key(seed), *words(stream), num_warps=1)
        n = below
    n = n if wants is None else n.where(wants[-1] > 0, 0)
    return n[: len(aligned)]
