"""Online gradient descent in the teacher-student model, a new Gaussian input at every step."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .normals import normals

_BLOCK = 256  # samples drawn at once


def online_sgd(
    w: Tensor,
    v: Tensor,
    w_star: Tensor,
    v_star: Tensor,
    first: int,
    samples: int,
    eta: float,
    sigma: float,
    seed: int,
    stream: int,
) -> tuple[Tensor, Tensor]:
    """Train students w [S, K, N], v [S, K] on teachers [S, M, N], [S, M] by `samples` steps from `first` on.

    lambda = w x / sqrt N, the teacher's alike, g = erf(. / sqrt 2), Delta = v g(lambda) - v* g(lambda*) - sigma zeta.

    w_k -= eta / sqrt N v_k g'(lambda_k) Delta x and v_k -= eta / N g(lambda_k) Delta. x and zeta of run s are the N + 1
    normals of the sample in stream + s.
    """
    n = w.shape[2]
    for begin in range(first, first + samples, _BLOCK):
        block = torch.arange(begin, min(begin + _BLOCK, first + samples), device=w.device)
        drawn = [normals(block, n + 1, seed, stream + s).to(w.dtype) for s in range(len(w))]
        for numbers in torch.stack(drawn, dim=1) if drawn else []:
            w, v = _step(w, v, w_star, v_star, numbers[:, :n], sigma * numbers[:, n], eta)
    return w.clone(), v.clone()


def _step(
    w: Tensor, v: Tensor, w_star: Tensor, v_star: Tensor, x: Tensor, noise: Tensor, eta: float
) -> tuple[Tensor, Tensor]:
    root = math.sqrt(w.shape[2])
    field, target = ((rows @ x[:, :, None])[..., 0] / root for rows in (w, w_star))
    output = torch.erf(field / math.sqrt(2))
    error = (v * output).sum(1) - (v_star * torch.erf(target / math.sqrt(2))).sum(1) - noise
    slope = math.sqrt(2 / math.pi) * torch.exp(-field.square() / 2)
    step = eta / root * v * slope * error[:, None]
    return w - step[..., None] * x[:, None], v - eta / w.shape[2] * output * error[:, None]
