"""What paper 004's lemmas and theorems say, found another way: every set of units, drawn masks and inputs, grids."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..nodes import k_dpp
from ..theory.teacher_student import edge_pruning as edges
from ..theory.teacher_student import integrals
from ..theory.teacher_student import node_pruning as nodes
from ..theory.teacher_student import order_parameters as order
from ..theory.teacher_student.networks import Network, monte_carlo_error, random_student, random_teacher
from ..theory.teacher_student.odes import derivatives

Key = dict[str, Any]
Fields = dict[str, Any]

V_STAR = 4.0
_EPSILON = 1e-9  # on the kernel's diagonal: next to none
_GRID = 20_000
_BATCH = 50  # masks at a time
# Of four fields, on which the specification has the integrals' values.
_COVARIANCE = ((1.0, 0.5, 0.2, 0.1), (0.5, 1.5, 0.3, 0.2), (0.2, 0.3, 1.0, 0.4), (0.1, 0.2, 0.4, 2.0))


def gaussian_integrals(key: Key) -> Fields:
    """Draw fields of a covariance: I2, J2, I3, I4."""
    C = torch.tensor(_COVARIANCE, dtype=torch.float64)
    z = _normal(key, key["samples"], 4) @ torch.linalg.cholesky(C).mT
    g, slope = torch.erf(z / math.sqrt(2)), math.sqrt(2 / math.pi) * torch.exp(-z.square() / 2)
    drawn = [
        g[:, 0] * g[:, 1],
        slope[:, 0] * slope[:, 1],
        slope[:, 0] * z[:, 1] * g[:, 2],
        slope[:, 0] * slope[:, 1] * g[:, 2] * g[:, 3],
    ]
    c = {f"{i + 1}{j + 1}": C[i, j] for i in range(4) for j in range(i, 4)}
    exact = [
        integrals.i2(c["11"], c["12"], c["22"]),
        integrals.j2(c["11"], c["12"], c["22"]),
        integrals.i3(c["11"], c["12"], c["13"], c["23"], c["33"]),
        integrals.i4(*c.values()),
    ]
    return _beside(torch.stack(drawn), exact)


def equation_13(key: Key) -> Fields:
    """Draw inputs of a teacher and a random student: half the squared error."""
    teacher, student = random_teacher(2, key["N"], V_STAR, key["seed"]), random_student(4, key["N"], key["seed"] + 1)
    drawn = monte_carlo_error(student, teacher, key["samples"], key["seed"] + 2)
    return _beside(drawn[None], [order.generalisation_error(order.order_parameters(student, teacher))])


def lemma_1(key: Key) -> Fields:
    """Draw inputs of a random student: the linear kernel L of its fields."""
    w = random_student(4, key["N"], key["seed"] + 1).w
    z = _normal(key, key["samples"], key["N"]) @ w.mT / math.sqrt(key["N"])
    i, j = torch.triu_indices(4, 4)
    return _beside((z[:, i] * z[:, j]).mT, (w @ w.mT / key["N"])[i, j].tolist())


def every_set(key: Key) -> Fields:
    """Prune the ansatz, and one of unequal v, to every set of units: how far the closed forms are off at most."""
    M, Z = key["M"], key["Z"]
    p = order.ansatz(M, Z, V_STAR)
    uneven = p._replace(v=p.v + _normal(key, M * Z))
    off = {"Lemma 2": 0.0, "unequal v": 0.0, "random": 0.0, "random, reweighted": 0.0}
    for k in range(M * Z + 1):
        kept = _sets(M * Z, k)
        errors, others = (order.generalisation_error(order.keep_units(one, kept)) for one in (p, uneven))
        groups = kept.view(-1, M, Z).sum(-1).tolist()
        sums = (kept * uneven.v).view(-1, M, Z).sum(-1).tolist()
        found = {
            "Lemma 2": (errors.tolist(), [nodes.lemma_2(units, Z, V_STAR) for units in groups]),
            "unequal v": (others.tolist(), [nodes.lemma_2_general(s, V_STAR) for s in sums]),
            "random": ([float(errors.mean())], [nodes.random_node(k, M, Z, V_STAR)]),
            "random, reweighted": (
                [float(order.generalisation_error(order.reweight(p, kept)).mean())],
                [nodes.random_node_reweighted(k, M, Z, V_STAR)],
            ),
        }
        for name, (ours, exact) in found.items():
            off[name] = max(off[name], *(abs(a - b) for a, b in zip(ours, exact, strict=True)))
    return {"off": off}


def dpp(key: Key) -> Fields:
    """Draw sets of k units from the k-DPP of the ansatz: errors, reweighted ones, and how many keep a unit a group."""
    M, Z, k = key["M"], key["Z"], key["k"]
    p = order.ansatz(M, Z, V_STAR)
    chosen = k_dpp(p.Q + _EPSILON * torch.eye(M * Z, dtype=torch.float64), k, seed=key["seed"], samples=key["sets"])
    kept = torch.zeros(key["sets"], M * Z, dtype=torch.bool).scatter(-1, chosen, True)
    law = nodes.dpp_law(k, M, Z)
    drawn = [order.generalisation_error(keep(p, kept)) for keep in (order.keep_units, order.reweight)]
    exact = [nodes.expected(law, M, V_STAR), nodes.expected_reweighted(law, M, V_STAR)]
    groups = (kept.view(-1, M, Z).sum(-1) > 0).sum(-1)
    return {**_beside(torch.stack(drawn), exact), "one of each": float((groups == min(k, M)).double().mean())}


def theorem_2(key: Key) -> Fields:
    """Return what node pruning at random, and of any set, errs more than DPPs do, for k = 1..M units."""
    M, Z = key["M"], key["Z"]
    sets = [units for units in itertools.product(range(Z + 1), repeat=M) if 1 <= sum(units) <= M]
    least = [min(nodes.lemma_2(units, Z, V_STAR) for units in sets if sum(units) == k) for k in range(1, M + 1)]
    divnet = [nodes.theorem_1_reweighted(k, M, V_STAR) for k in range(1, M + 1)]
    random = [nodes.random_node(k, M, Z, V_STAR) - nodes.theorem_1(k, M, Z, V_STAR) for k in range(1, M + 1)]
    again = [nodes.random_node_reweighted(k, M, Z, V_STAR) - divnet[k - 1] for k in range(1, M + 1)]
    return {"7": random, "8": again, "9": [a - b for a, b in zip(least, divnet, strict=True)]}


def lemma_3(key: Key) -> Fields:
    """Take the ODEs at the ansatz, its v moved: dv_i/dt over v* - sum of the group's v."""
    p = order.ansatz(key["M"], key["Z"], V_STAR)
    moved = p._replace(v=p.v + _normal(key, len(p.v)))
    lacking = V_STAR - moved.v.view(key["M"], key["Z"]).sum(1).repeat_interleave(key["Z"])
    return {"rates": (derivatives(moved, 1.0).v / lacking).tolist()}


def lemma_4(key: Key) -> Fields:
    """Draw edges of a random student: the means of Q' (the diagonal first) and R'."""
    student, teacher = random_student(4, key["N"], key["seed"]), random_teacher(2, key["N"], V_STAR, key["seed"] + 1)
    drawn = _edges_drawn(student, teacher, key)
    exact = order.keep_random_edges(order.order_parameters(student, teacher), key["c"])
    i, j = torch.triu_indices(4, 4, 1)

    def entries(p: order.OrderParameters) -> Tensor:
        return torch.cat([p.Q.diagonal(dim1=-2, dim2=-1), p.Q[..., i, j], p.R.flatten(-2)], dim=-1)

    found = _beside(entries(drawn).mT, entries(exact).tolist())
    return {**found, "diagonal by the proof": (key["c"] * exact.Q.diagonal()).tolist()}


def theorem_3(key: Key) -> Fields:
    """Draw edges of students at the ansatz: errors, and that of the average of all pruned networks."""
    student, teacher = _at_the_ansatz(key)
    errors = order.generalisation_error(_edges_drawn(student, teacher, key))
    average = order.order_parameters(Network(key["c"] * student.w, student.v), teacher)
    exact = edges.theorem_3(key["c"], key["M"], key["Z"], V_STAR)
    return {**_beside(errors[None], [exact]), "averaged": float(order.generalisation_error(average))}


def importance_edges(key: Key) -> Fields:
    """Keep the largest weights of students at the ansatz, of several Gaussian teachers."""
    found = []
    for number in range(key["teachers"]):
        teacher = random_teacher(key["M"], key["N"], V_STAR, 1000 * key["seed"] + number)
        top = teacher.w.abs().topk(round(key["c"] * key["N"]), dim=-1).indices
        w = torch.zeros_like(teacher.w).scatter(-1, top, teacher.w.gather(-1, top)).repeat_interleave(key["Z"], 0)
        student = Network(w, torch.full((len(w),), V_STAR / key["Z"], dtype=torch.float64))
        found.append(order.generalisation_error(order.order_parameters(student, teacher)))
    return _beside(torch.stack(found)[None], [edges.importance_edge(key["c"], key["M"], V_STAR)])


def signs(key: Key) -> Fields:
    """Flip units of the ansatz: what canonical order parameters still differ by, and the errors of pruned ones."""
    p = order.ansatz(key["M"], key["Z"], V_STAR)
    sign = torch.where(torch.arange(len(p.v)) % 2 == 0, 1.0, -1.0).double()
    flipped = p._replace(Q=p.Q * sign[:, None] * sign, R=p.R * sign[:, None], v=p.v * sign)
    errors = [order.generalisation_error(order.keep_random_edges(one, 0.3)) for one in (p, flipped)]
    off = [float((a - b).abs().max()) for a, b in zip(p, flipped.canonical(), strict=True)]
    return {"off": max(*off, float((errors[0] - errors[1]).abs()))}


def margins(key: Key) -> Fields:
    """Compare nodes and edges for shares 0 < c <= 1/Z: Theorem 4's margin and Theorem 5's, and where edges lose."""
    Z = key["Z"]
    c = torch.arange(1, _GRID + 1, dtype=torch.float64) / _GRID / Z
    four, five = edges.theorem_4_margin(c, Z), edges.theorem_5_margin(c, Z)
    some = slice(_GRID // 100 - 1, None, _GRID // 100)
    last = -1 if Z == 1 else None  # c = 1 keeps everything
    return {
        "least of 4": float(four[:last].min()),
        "most of 5": float(five[:last].max()),
        "crossing": edges.crossing(Z),
        "share": c[some].tolist(),
        "4": four[some].tolist(),
        "5": five[some].tolist(),
    }


def conjecture_1(key: Key) -> Fields:
    """Return nodes' error less edges', over v*^2, for k = 1, 2, ... of K units: random ones, and those of importance.

    Nodes by importance fill one group after the other, or are random where all v are the same: the lesser error counts.
    """
    M, Z = key["M"], key["Z"]
    K = M * Z
    random = [nodes.random_node(k, M, Z, 1.0) for k in range(1, K)]
    important = [min(a, nodes.importance_node(k, M, Z, 1.0)) for k, a in enumerate(random, start=1)]
    return {
        "gaps": [a - float(edges.theorem_3(k / K, M, Z, 1.0)) for k, a in enumerate(random, start=1)],
        "of importance": [a - float(edges.importance_edge(k / K, M, 1.0)) for k, a in enumerate(important, start=1)],
    }


def equation_18(key: Key) -> Fields:
    """Return how far both forms of equation 18 are from l - 1 + (1 - l/Z)^2 at most, up to `most` units and copies."""
    cases = [(units, Z) for units in range(1, key["most"] + 1) for Z in range(1, key["most"] + 1)]
    left = [units - 1 + (1 - units / Z) ** 2 for units, Z in cases]
    forms = {"corrected": nodes.equation_18, "printed": nodes.equation_18_printed}
    return {name: max(abs(form(*c) - a) for c, a in zip(cases, left, strict=True)) for name, form in forms.items()}


MEASURES: dict[str, Callable[[Key], Fields]] = {
    "integrals": gaussian_integrals,
    "equation 13": equation_13,
    "Lemma 1": lemma_1,
    "every set": every_set,
    "k-DPP": dpp,
    "Theorem 2": theorem_2,
    "Lemma 3": lemma_3,
    "Lemma 4": lemma_4,
    "Theorem 3": theorem_3,
    "importance edges": importance_edges,
    "signs": signs,
    "margins": margins,
    "Conjecture 1": conjecture_1,
    "equation 18": equation_18,
}


def _beside(drawn: Tensor, exact: list[Any]) -> Fields:
    """Return means of draws [numbers, draws], their standard errors, and what they should be."""
    found, off = drawn.mean(1), drawn.std(1) / math.sqrt(drawn.shape[1])
    return {"found": found.tolist(), "errors": off.tolist(), "exact": [float(value) for value in exact]}


def _normal(key: Key, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(key["seed"]))


def _sets(units: int, k: int) -> Tensor:
    """Return every set of k units as bool masks [sets, units]."""
    chosen = itertools.combinations(range(units), k)
    return torch.tensor([[unit in one for unit in range(units)] for one in chosen])


def _at_the_ansatz(key: Key) -> tuple[Network, Network]:
    """Return Z copies of each unit of a teacher whose units are orthogonal and of length sqrt N."""
    rows = torch.linalg.qr(_normal(key, key["N"], key["M"])).Q.mT
    teacher = Network(math.sqrt(key["N"]) * rows, torch.full((key["M"],), V_STAR, dtype=torch.float64))
    v = torch.full((key["M"] * key["Z"],), V_STAR / key["Z"], dtype=torch.float64)
    return Network(teacher.w.repeat_interleave(key["Z"], 0), v), teacher


def _edges_drawn(student: Network, teacher: Network, key: Key) -> order.OrderParameters:
    """Return the order parameters of a student under random masks of its edges, [masks]."""
    generator = torch.Generator().manual_seed(key["seed"] + 2)
    batches = []
    for first in range(0, key["masks"], _BATCH):
        shape = (min(_BATCH, key["masks"] - first), *student.w.shape)
        kept = torch.rand(shape, generator=generator) < key["c"]
        batches.append(order.order_parameters(Network(student.w * kept, student.v), teacher))
    Q, R = (torch.cat([getattr(batch, name) for batch in batches]) for name in ("Q", "R"))
    return batches[0]._replace(Q=Q, R=R)
