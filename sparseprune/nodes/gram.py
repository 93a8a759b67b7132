"""Inner products of a layer's features over the data: all that its kernels and least squares depend on."""

from __future__ import annotations

import torch
from torch import Tensor

# Singular values of the features below the root of this share of their Frobenius norm are damped.
_RIDGE = 1e-12


class Gram:
    """A^T A in float64 of features A [rows, n] that come batch by batch.

    Memory: n^2 numbers, whatever the number of rows.
    """

    def __init__(self, features: Tensor | None = None) -> None:
        self.rows = 0
        self.matrix = torch.empty(0, 0, dtype=torch.float64)
        if features is not None:
            self.add(features)

    def add(self, features: Tensor) -> None:
        """Add a batch [rows, n] of any float dtype."""
        features = features.detach().double()
        new = features.mT @ features
        self.matrix = self.matrix.add_(new) if self.rows else new
        self.rows += len(features)

    def linear(self, epsilon: float = 0.01) -> Tensor:
        """Return the linear kernel [n, n], scaled to a mean of 1 on its diagonal: n A^T A / tr(A^T A) + epsilon I."""
        scale = self.matrix.diagonal().mean().clamp_min(torch.finfo(torch.float64).tiny)
        return self.matrix / scale + epsilon * torch.eye(len(self.matrix)).to(self.matrix)

    def rbf(self, beta: float = 10.0, epsilon: float = 0.01) -> Tensor:
        """Return the RBF kernel [n, n]: L_st = exp(-beta mean_rows (a_s - a_t)^2) + epsilon 1[s = t]."""
        squares = self.matrix.diagonal()
        distances = (squares[:, None] + squares - 2 * self.matrix).clamp_min(0.0)
        distances.fill_diagonal_(0.0)
        return (-beta / self.rows * distances).exp() + epsilon * torch.eye(len(squares)).to(squares)

    def regress(self, on: Tensor, moments: Tensor) -> Tensor:
        """Solve min_x ||A_S x - t||; of many solutions the one of least norm.

        Args:
            on: indices S, [..., k].
            moments: A_S^T t, [..., k, m].

        Returns:
            x, float64 [..., k, m].

        Cost: k^3/3 for each S.
        """
        ridge = (_RIDGE * self.matrix.trace()).clamp_min(torch.finfo(torch.float64).tiny)
        square = self.matrix[on[..., :, None], on[..., None, :]]
        square.diagonal(dim1=-2, dim2=-1).add_(ridge)
        return torch.cholesky_solve(moments, torch.linalg.cholesky(square))
