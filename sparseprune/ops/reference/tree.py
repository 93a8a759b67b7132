"""Draws per tile: multinomial counts by a binary heap of exact binomials over the tiles."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from .philox import NODE, philox, popcount32


def count_ones(calls: Tensor, node: Tensor, plane: int, left: Tensor, seed: int, stream: int) -> Tensor:
    """Ones among the first `left` bits of the Philox calls `calls`, `calls` + 1, ... of a node, per row."""
    rows = torch.repeat_interleave(torch.arange(len(left), device=left.device), (left + 127) >> 7)
    index = torch.arange(len(rows), device=left.device) - (((left + 127) >> 7).cumsum(0) - ((left + 127) >> 7))[rows]
    words = philox(calls[rows] + index, node[rows], stream, NODE + 256 * plane, seed)
    ones = torch.zeros_like(left)
    for j, word in enumerate(words):
        bits = (left[rows] - 128 * index - 32 * j).clamp(0, 32)
        ones.index_add_(0, rows, popcount32(word & ((1 << bits) - 1)))
    return ones


def binomial_chunk(
    node: Tensor, h: Tensor, left: Tensor, part: Tensor, whole: Tensor, seed: int, stream: int
) -> Tensor:
    """Binomial(left, part/whole), at most 2^14 trials: bit planes of uniforms against the digits of part/whole."""
    result, a, plane = torch.zeros_like(left), part, 0
    while bool((active := (left > 0) & (a > 0)).any()):
        a = 2 * a
        bit = a >= whole
        a = torch.where(bit, a - whole, a)
        ones = count_ones(128 * h, node, plane, torch.where(active, left, 0), seed, stream)
        result = torch.where(active & bit, result + ones, result)
        left = torch.where(active, torch.where(bit, left - ones, ones), left)
        plane += 1
    return result


def binomial(node: Tensor, n: Tensor, part: Tensor, whole: Tensor, seed: int, stream: int) -> Tensor:
    """Exact Binomial(n, part/whole), one per node: trials in chunks of 2^14."""
    result = torch.where(part == whole, n, 0)
    rows = torch.where((part > 0) & (part < whole), (n + 16383) >> 14, 0)
    owner = torch.repeat_interleave(torch.arange(len(n), device=n.device), rows)
    h = torch.arange(len(owner), device=n.device) - (rows.cumsum(0) - rows)[owner]
    for o, k in zip(owner.split(1024), h.split(1024), strict=True):
        left = (n[o] - (k << 14)).clamp(max=16384)
        result.index_add_(0, o, binomial_chunk(node[o], k, left, part[o], whole[o], seed, stream))
    return result


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
    wants = heap((wanted if wanted.numel() else torch.ones_like(aligned)).to(torch.int64))
    n = aligned.new_tensor([draws])
    for level, (whole, below) in enumerate(pairwise(heap(aligned))):
        n = torch.where(wants[level] > 0, n, 0)
        node = torch.arange(1 << level, 2 << level, device=n.device)
        left = binomial(node, n, below[0::2], whole, seed, stream)
        n = torch.stack([left, n - left], dim=1).view(-1)
    return torch.where(wants[-1] > 0, n, 0)[: len(aligned)]
