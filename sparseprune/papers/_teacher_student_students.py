"""Paper 004's simulations: students trained online on several teachers at once, and their first layers pruned.

Units keep their training's order; `canonical` students have v >= 0, the same functions. Errors are exact, by the order
parameters, without the labels' noise, which would add sigma^2 / 2.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..nodes import k_dpp
from ..results import identity
from ..theory.teacher_student import edge_pruning, node_pruning
from ..theory.teacher_student.networks import Network, random_student, random_teacher
from ..theory.teacher_student.order_parameters import (
    OrderParameters,
    generalisation_error,
    keep_units,
    order_parameters,
    reweight,
)
from ..theory.teacher_student.simulate import simulate
from ..training import checkpoint

Tell = Callable[[str], None]
V_STAR, ETA = 4.0, 0.5
DPP_NODE, RANDOM_EDGE, RANDOM_NODE = "DPP node", "random edge", "random node"
IMPORTANCE_EDGE, IMPORTANCE_NODE = "importance edge", "importance node"
DIVNET, SCALED_EDGE, UNPRUNED = "DIVNET", "random edge, best scale", "unpruned"
DRAWN = {DPP_NODE, RANDOM_EDGE, RANDOM_NODE, DIVNET, SCALED_EDGE}
_PARTS = 20  # of a training, for the bar


@dataclass(frozen=True)
class Setting:
    """Teachers of M units, students of K, N inputs, trained for `epochs` N samples each.

    Args:
        units: numbers of units to prune to.
        teachers: how many.
        draws: random masks of each student.
    """

    M: int
    K: int
    N: int
    units: tuple[int, ...] = (1, 2, 3, 4, 5)
    epochs: int = 1600
    teachers: int = 10
    draws: int = 100

    @property
    def Z(self) -> int:
        """Return the students of a teacher unit."""
        return self.K // self.M

    def edges(self, k: int) -> int:
        """Return k_e, the edges kept of each unit: as many parameters as k units, (k (1 + N) - K) / K, half up.

        With Z >= 4, as in figure 2D, N k / K (equation 4).
        """
        if self.Z >= 4:
            return math.floor(self.N * k / self.K + 0.5)
        return math.floor((k * (1 + self.N) - self.K) / self.K + 0.5)


class Students:
    """Students of a setting and a noise of the labels, one a teacher: from the disk, or trained when needed.

    Args:
        folder: of the checkpoint.
        tell: called with what is being done while they are trained.
    """

    def __init__(self, setting: Setting, sigma: float, seed: int, folder: Path, tell: Tell) -> None:
        self.setting, self.sigma, self._seed, self._folder, self._tell = setting, sigma, seed, folder, tell

    @property
    def key(self) -> dict[str, Any]:
        """Return what decides the students."""
        recipe = {name: value for name, value in asdict(self.setting).items() if name not in ("units", "draws")}
        return {**recipe, "eta": ETA, "sigma": self.sigma, "seed": self._seed}

    @cached_property
    def teacher(self) -> Network:
        """Return the teachers, w [teachers, M, N]."""
        s = self.setting
        return _stacked([random_teacher(s.M, s.N, V_STAR, seed) for seed in self._seeds(0)])

    @cached_property
    def student(self) -> Network:
        """Return the students, w [teachers, K, N], with every v >= 0."""
        return self.signed.canonical()

    @cached_property
    def signed(self) -> Network:
        """Return the students as they were trained, units of both signs."""
        digest = hashlib.sha256(identity(self.key).encode()).hexdigest()[:16]
        path = self._folder / f"students-{digest}.pt"
        state = checkpoint.load(path, self.key, torch.device("cpu"))
        found = Network(state["w"], state["v"]) if state is not None else self._trained()
        if state is None:
            checkpoint.save(path, {"recipe": self.key, "w": found.w, "v": found.v})
        return found

    @cached_property
    def parameters(self) -> OrderParameters:
        """Return the order parameters [teachers] of the unpruned students."""
        return order_parameters(self.student, self.teacher)

    def normalised(self) -> Students:
        """Return the same students, each row of w scaled to length sqrt N, as the authors' code does it in places."""
        other = copy.copy(self)
        w, v = self.student
        vars(other).pop("parameters", None)
        vars(other)["student"] = Network(math.sqrt(self.setting.N) * w / w.norm(dim=-1, keepdim=True), v)
        return other

    def _seeds(self, which: int) -> range:
        first = self._seed * 1_000_003 + which
        return range(first, first + 2 * self.setting.teachers, 2)

    def _trained(self) -> Network:
        s = self.setting
        student, total = _stacked([random_student(s.K, s.N, seed) for seed in self._seeds(1)]), s.epochs * s.N
        part = -(-total // _PARTS)
        for first in range(0, total, part):
            self._tell(f"training K = {s.K}, sigma = {self.sigma:g}, {first} of {total} samples")
            some = min(part, total - first)
            student = simulate(self.teacher, student, some, eta=ETA, sigma=self.sigma, seed=self._seed, first=first)
        return student

    def errors(self, method: str, k: int, seed: int) -> Tensor:
        """Return generalisation errors [teachers, draws], or [teachers, 1] where nothing is drawn."""
        if method == UNPRUNED:
            return generalisation_error(self.parameters)[:, None]
        if method in (RANDOM_EDGE, SCALED_EDGE, IMPORTANCE_EDGE):
            some = self.edge_pruned(method, k, seed)
            return torch.stack([_best_scaled(p) if method == SCALED_EDGE else generalisation_error(p) for p in some], 1)
        each = OrderParameters(*(block.unsqueeze(1) for block in self.parameters))
        prune = reweight if method == DIVNET else keep_units
        return generalisation_error(prune(each, self.kept_units(method, k, seed)))

    def kept_units(self, method: str, k: int, seed: int) -> Tensor:
        """Return masks [teachers, draws, K] of k units."""
        v, s = self.parameters.v, self.setting
        if method == IMPORTANCE_NODE:
            chosen = v.abs().topk(k, dim=-1).indices.unsqueeze(1)
        elif method == RANDOM_NODE:
            generator = torch.Generator().manual_seed(seed)
            chosen = torch.rand(len(v), s.draws, s.K, generator=generator).topk(k, dim=-1).indices
        else:
            chosen = k_dpp(self.parameters.Q, k, seed=seed, samples=s.draws)
        return torch.zeros(*chosen.shape[:2], s.K, dtype=torch.bool).scatter(-1, chosen, True)

    def edge_pruned(self, method: str, k: int, seed: int) -> list[OrderParameters]:
        """Return the order parameters [teachers] of every draw: each edge kept with chance k_e / N, or the largest."""
        (w, v), kept = self.student, self.setting.edges(k)
        if method == IMPORTANCE_EDGE:
            mask = torch.zeros_like(w).scatter(-1, w.abs().topk(kept, dim=-1).indices, 1.0)
            return [order_parameters(Network(w * mask, v), self.teacher)]
        generator = torch.Generator().manual_seed(seed)
        masks = (torch.rand(w.shape, generator=generator) < kept / w.shape[-1] for _ in range(self.setting.draws))
        return [order_parameters(Network(w * mask, v), self.teacher) for mask in masks]


def in_theory(method: str, k: int, s: Setting) -> float | None:
    """Return the error at the ansatz, without noise; importance node: of ties broken at random."""
    if method == UNPRUNED:
        return 0.0
    c = s.edges(k) / s.N
    if method in (RANDOM_NODE, IMPORTANCE_NODE):
        return node_pruning.random_node(k, s.M, s.Z, V_STAR)
    if method in (DPP_NODE, DIVNET):
        law = node_pruning.dpp_law(k, s.M, s.Z)
        return (node_pruning.expected_reweighted if method == DIVNET else node_pruning.expected)(law, s.M, V_STAR)
    if method == IMPORTANCE_EDGE:
        return float(edge_pruning.importance_edge(c, s.M, V_STAR))
    return float((edge_pruning.theorem_5 if method == SCALED_EDGE else edge_pruning.theorem_3)(c, s.M, s.Z, V_STAR))


def _best_scaled(p: OrderParameters) -> Tensor:
    """Return the least error over the scale A of v, which is a polynomial of degree two in A."""
    none, one, minus = (generalisation_error(p._replace(v=scale * p.v)) for scale in (0.0, 1.0, -1.0))
    return none - (minus - one).square() / (8 * (one + minus - 2 * none))


def _stacked(networks: list[Network]) -> Network:
    w, v = zip(*networks, strict=True)
    return Network(torch.stack(w), torch.stack(v))
