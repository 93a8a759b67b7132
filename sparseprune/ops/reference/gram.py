"""Tangent kernels of layers with a compressed sparse weight: Gram matrices of gradients on kept weights alone.

Examples are last: inputs a `[K, N]` or x `[C, H, W, N]`, back-propagated signals b `[M, O, N]` of O outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .convolution import Geometry
from .products import matrix, row_numbers


def ntk_gram(
    offsets: Tensor, indices: Tensor, squares: Tensor | None, a: Tensor, b: Tensor, a2: Tensor | None,
    b2: Tensor | None, full: bool,
) -> Tensor:  # fmt: skip
    """sum_i (sum_{j in row i} q_j a[c_j, n] a2[c_j, n']) (sum_o b[i, o, n] b2[i, o, n']): `[N, N2]` of y = W a.

    c = indices, q = squares `[nnz]` (1 where None); `full` keeps the outputs apart: b[i, o, n] b2[i, p, n'] gives
    `[N, N2, O, O]`. Without a2 and b2 the result is that of a and b with themselves, symmetric to the last bit.
    """
    kept = a.new_ones(len(indices)) if squares is None else squares
    own = a2 is None and b2 is None
    a2, b2 = a if a2 is None else a2, b if b2 is None else b2
    inner = torch.einsum("ik,kn,km->inm", matrix(kept, offsets, indices, None, len(a)), a, a2)
    kernel = torch.einsum("inm,ion,ipm->nmop" if full else "inm,ion,iom->nm", inner, b, b2)
    if own:
        kernel = (kernel + (kernel.permute(1, 0, 3, 2) if full else kernel.t())) / 2
    return kernel.contiguous()


def spconv_dw_each(row_offsets: Tensor, columns: Tensor, x: Tensor, grad: Tensor, geometry: list[int]) -> Tensor:
    """The gradient of spconv's kept weights for each example and output: `[nnz, O, N]`.

    From x `[C, H, W, N]` and grad `[M, OH, OW, O, N]`; geometry's groups must be 1.
    """
    g = Geometry.of(geometry)
    top, bottom, left, right = g.padding
    images = F.pad(x.permute(3, 0, 1, 2), (left, right, top, bottom))
    patches = F.unfold(images, g.kernel, g.dilation, 0, g.stride)  # [N, C KH KW, OH OW]
    rows = row_numbers(row_offsets, len(columns))
    return torch.einsum("njp,jpon->jon", patches[:, columns.long()], grad.flatten(1, 2)[rows]).contiguous()
