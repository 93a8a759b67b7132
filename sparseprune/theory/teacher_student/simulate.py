"""Online SGD of students on their teachers: what the ODEs and the ansatz are the limit of."""

from __future__ import annotations

import math

import torch

from .networks import Network


def simulate(
    teacher: Network,
    student: Network,
    samples: int,
    *,
    eta: float = 0.5,
    sigma: float = 0.0,
    seed: int = 0,
    first: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Network:
    """Train students by online SGD, each input x ~ N(0, I_N) once, Delta = f(x) - f*(x) - sigma zeta.

    w_k <- w_k - (eta / sqrt N) v_k g'(z_k) Delta x,  v_k <- v_k - (eta / N) g(z_k) Delta.

    Training goes on where it ended with `first` = the samples so far: the same bits as in one call.

    Args:
        teacher: one, or a batch [...] of them.
        student: as it starts, or a batch; batches are broadcast, and each of their runs has inputs of its own.
        samples: steps; one unit of the ODEs' time is N of them.
        eta: learning rate.
        sigma: standard deviation of the labels' noise.
        seed: of the inputs.
        first: number of the first sample.
        dtype: of the steps; errors of trained students in float32 and float64 agree to four digits.

    Returns:
        The trained students, float64.

    Raises:
        ValueError: nets of unequal inputs or w and v that do not fit, samples or sigma below 0, another dtype.

    Cost: about 1 us a step of 6 + 2 units and 500 inputs; batches run in parallel.

    Reference: Goldt et al. 2019 (arXiv 1906.08632); Acharyya et al., UAI 2021, section 5.1.
    """
    inputs = student.w.shape[-1]
    if teacher.w.shape[-1] != inputs:
        raise ValueError(f"simulate: teacher must have the student's {inputs} inputs, got {teacher.w.shape[-1]}")
    if samples < 0 or first < 0:
        raise ValueError(f"simulate: samples and first must be at least 0, got {samples} and {first}")
    for name, net in (("teacher", teacher), ("student", student)):
        if net.v.shape != net.w.shape[:-1] or not net.w.shape[-2:].numel():
            raise ValueError(
                f"simulate: {name} must have w [..., H, N], v [..., H], got {[*net.w.shape]}, {[*net.v.shape]}"
            )
    if not (math.isfinite(eta) and 0 <= sigma < math.inf):
        raise ValueError(f"simulate: eta must be finite, sigma too and at least 0, got {eta} and {sigma}")
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"simulate: dtype must be float32 or float64, got {dtype}")
    batch = torch.broadcast_shapes(teacher.v.shape[:-1], student.v.shape[:-1])
    nets = [
        part.to(dtype).expand(*batch, *part.shape[part.dim() - own :]).reshape(-1, *part.shape[part.dim() - own :])
        for part, own in ((student.w, 2), (student.v, 1), (teacher.w, 2), (teacher.v, 1))
    ]
    w, v = torch.ops.sparseprune.online_sgd(*nets, first, samples, eta, sigma, seed, 0)
    return Network(w.double().reshape(*batch, -1, inputs), v.double().reshape(*batch, -1))
