"""Order parameters and kernels of paper 004's trained students: figures 2E to 2G, 5 and 6.

Matrices are those of the first student, its units sorted by the teacher unit that they follow.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from ..theory.teacher_student import edge_pruning
from ..theory.teacher_student.networks import activation
from ..theory.teacher_student.order_parameters import OrderParameters, ansatz, keep_random_edges, keep_units
from ._teacher_student_rows import Key, block
from ._teacher_student_students import RANDOM_EDGE, V_STAR, Students

_INPUTS = 4000  # for a kernel
_EPSILON = 0.01  # on the diagonal of the Gaussian one


def groups(p: OrderParameters) -> Tensor:
    """Return the teacher unit that each student unit follows [..., K]."""
    return p.R.abs().argmax(-1)


def one_of_each(L: Tensor, group: Tensor, M: int) -> tuple[Tensor, float]:
    """Return P(an M-DPP of L [K, K] keeps one unit of each group), by enumeration, and the same of random units."""
    sets = torch.tensor(list(itertools.combinations(range(len(group)), M)))
    weights = torch.linalg.det(L[sets[:, :, None], sets[:, None, :]])
    spread = torch.tensor([len(set(row)) == M for row in group[sets].tolist()])
    return weights[spread].sum() / weights.sum(), float(spread.double().mean())


def kernels(students: Students, key: Key, seed: int) -> dict[str, Any]:
    """Compare kernels of the students' units over drawn inputs with Q, and what a 2-DPP of them keeps."""
    s, p = students.setting, students.parameters
    group = groups(p)
    x = torch.randn(_INPUTS, s.N, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    fields = students.student.w @ x.T / s.N**0.5  # [teachers, K, inputs]
    linear = fields @ fields.mT / _INPUTS
    own = p.Q.diagonal(dim1=-2, dim2=-1)
    off = ((own[:, :, None] * own[:, None, :] + p.Q.square()) / _INPUTS).sqrt()
    signs = students.signed.v.sign()[:, :, None]
    kinds = {
        "linear": p.Q,
        "Gaussian": _gaussian(activation(fields), 0.3 * _INPUTS),
        "Gaussian, mean": _gaussian(activation(fields), 10.0),
        "its signs": _gaussian(activation(signs * fields), 10.0),
    }
    found = {name: [one_of_each(L, g, s.M) for L, g in zip(some, group, strict=True)] for name, some in kinds.items()}
    upper = torch.triu_indices(s.K, s.K)
    order = group[0].argsort(stable=True)
    sets = torch.tensor(list(itertools.combinations(range(s.K), 2)))
    Q = p.Q[0][order][:, order]
    dets = torch.linalg.det(Q[sets[:, :, None], sets[:, None, :]])
    pairs = torch.zeros(s.K, s.K, dtype=torch.float64)
    pairs[sets[:, 0], sets[:, 1]] = pairs[sets[:, 1], sets[:, 0]] = dets / dets.sum()
    return {
        "linear": block(linear[:1, upper[0], upper[1]].flatten()),
        "overlaps": block(p.Q[:1, upper[0], upper[1]].flatten()),
        "linear errors": block(off[:1, upper[0], upper[1]].flatten()),
        "one of each": {name: [float(chance) for chance, _ in some] for name, some in found.items()},
        "chance": sum(random for _, random in found["linear"]) / s.teachers,
        "matrices": [block(m) for m in (linear[0][order][:, order], Q, p.R[0][order], pairs)],
    }


def _gaussian(features: Tensor, beta: float) -> Tensor:
    """Return exp(-beta mean (a_s - a_t)^2) + epsilon I of features [..., K, inputs]."""
    distance = torch.cdist(features, features).square() / features.shape[-1]
    return (-beta * distance).exp() + _EPSILON * torch.eye(features.shape[-2], dtype=features.dtype)


def nodes(students: Students, key: Key, seed: int) -> dict[str, Any]:
    """Measure which groups are left after node pruning, and the first student's Q' and R'."""
    s, p = students.setting, students.parameters
    group = groups(p)
    kept = students.kept_units(key["method"], key["k"], seed)
    of = torch.nn.functional.one_hot(group, s.M).double()  # [teachers, K, M]
    lost = s.M - ((kept.double() @ of) > 0).sum(-1).double().mean(1)
    sums = (p.v[:, None, :] @ of).flatten()
    own = p.Q.diagonal(dim1=-2, dim2=-1).mean(1)
    order = group[0].argsort(stable=True)
    first = keep_units(OrderParameters(*(part[0] for part in p)), kept[0, 0])
    fields = {"kept": int(kept[0, 0].sum()), "mean lost": float(lost.mean()), "lost": lost.tolist()}
    ideal = keep_units(ansatz(s.M, s.Z, V_STAR), kept[0, 0, order])
    return {
        **fields,
        "sums": sums.tolist(),
        "norms": own.tolist(),
        "matrices": [block(first.Q[order][:, order]), block(first.R[order])],
        "closed form": [block(ideal.Q), block(ideal.R)],
    }


def edges(students: Students, key: Key, seed: int) -> dict[str, Any]:
    """Measure Q' and R' after edge pruning beside their closed forms, and how far Q' is from Q."""
    s, p = students.setting, students.parameters
    method, share = key["method"], s.edges(key["k"]) / s.N
    draws = students.edge_pruned(method, key["k"], seed)
    Q, R = (torch.stack([getattr(draw, name) for draw in draws]) for name in ("Q", "R"))  # [draws, teachers, ...]
    distance = (Q - p.Q).square().sum((-2, -1)).sqrt().mean(0)
    moments = (Q.diagonal(dim1=-2, dim2=-1).mean((0, 2)) / p.Q.diagonal(dim1=-2, dim2=-1).mean(1)).tolist()
    order = groups(p)[0].argsort(stable=True)
    q, full = float(edge_pruning.kept_moment(share)), ansatz(s.M, s.Z, V_STAR)
    random = method == RANDOM_EDGE
    ideal = keep_random_edges(full, share) if random else full._replace(Q=q * full.Q, R=q * full.R)
    row = {
        "share": share,
        "distance": float(distance.mean()),
        "moment": sum(moments) / len(moments),
        "theory": share if random else q,
        "values": distance.tolist(),
        "moments": moments,
        "matrices": [block(Q.mean(0)[0][order][:, order]), block(R.mean(0)[0][order])],
        "closed form": [block(ideal.Q), block(ideal.R)],
    }
    if not random:
        return row
    # Each kind of entry as a multiple of the unpruned one, draw by draw: c, c^2, c.
    own, cross = p.Q[0], p.R[0]
    among = own - own.diagonal().diag()
    ratios = torch.stack([
        (Q[:, 0].diagonal(dim1=1, dim2=2) / own.diagonal()).mean(1),
        (Q[:, 0] * among).sum((1, 2)) / among.square().sum(),
        (R[:, 0] * cross).sum((1, 2)) / cross.square().sum(),
    ])  # fmt: skip
    errors = (ratios.std(1) / len(draws) ** 0.5).tolist()
    return {**row, "found": ratios.mean(1).tolist(), "expected": [share, share**2, share], "errors": errors}
