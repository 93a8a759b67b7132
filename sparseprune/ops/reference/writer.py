"""Writing results: m, counts, w m or a mask, in the caller's types."""

from __future__ import annotations

import torch
from torch import Tensor

M, COUNTS, WEIGHTS, BOOL = range(4)


class FlatWriter:
    """Writes consecutive pieces of the logical vector into the list of outputs."""

    def __init__(self, scores: list[Tensor], output: int, weights: list[Tensor], out: list[Tensor]) -> None:
        self.scores, self.output, self.weights, self.out = scores, output, weights, out
        self.at = 0

    def write(self, counts: Tensor, m: Tensor, write: Tensor | None = None) -> None:
        counts, m = counts.view(-1), m.view(-1)
        begin = 0
        for i, out in enumerate(self.out):
            size = out.numel()
            low, high = max(self.at, begin), min(self.at + counts.numel(), begin + size)
            if low < high:
                piece, source = slice(low - begin, high - begin), slice(low - self.at, high - self.at)
                target, values = out.view(-1)[piece], self.finish(i, piece, counts[source], m[source])
                where = slice(None) if write is None else write.view(-1)[source]  # the rest keeps its very bits
                target[where] = values[where].to(target.dtype)
            begin += size
        self.at += counts.numel()

    def finish(self, i: int, piece: slice, counts: Tensor, m: Tensor) -> Tensor:
        """fp32 m (fp64 for fp64 scores); w m is one product in the wider of the two types, then one rounding."""
        if self.output == COUNTS:
            return counts.to(torch.int32)
        if self.output == BOOL:
            return counts > 0
        m = m.to(torch.float64 if self.scores[i].dtype == torch.float64 else torch.float32)
        if self.output == WEIGHTS:
            w = self.weights[i].view(-1)[piece]
            m = m.to(torch.promote_types(m.dtype, w.dtype)) * w
        return m
