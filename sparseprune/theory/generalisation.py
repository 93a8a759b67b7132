"""Random pruning before training, and what the trained net then knows: the model of paper 003.

y is uniform on K classes, x = mu e_y + xi, xi ~ N(0, sigma_n^2 I_d), e_k the k-th coordinate. The net has m ReLU units
a class and ones as output weights: F_k(x) = sum_r relu(<w_kr * M_kr, x>), w ~ N(0, sigma_0^2), M ~ Bernoulli(p), p
the chance to be kept. Gradient descent on the mean cross-entropy of n examples moves the kept weights.

Recalled, not quoted: only the abstract was at hand; constants and regimes are from memory, numbers are measured. As
recalled: pruning with p in [C log d / m, 1] leaves a net that fits and generalises, the better the lower p; there is a
p of order 1 / (K m log d) at which it fits and is no better than a guess.

Tensors: S seeds, P keep probabilities, then K, m, d (weights and masks) or n, d (examples).

Reference: Yang et al., JMLR 26(84), 2025 (arXiv 2301.00335).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

Chance = TypeVar("Chance", float, Tensor)


@dataclass(frozen=True)
class Model:
    """Data and network, and what is known of their masks.

    Args:
        classes, dimension, examples, units: K, d, n and m, the units a class.
        signal, noise, scale: mu, sigma_n, sigma_0.
    """

    classes: int = 4
    dimension: int = 2000
    examples: int = 80
    units: int = 40
    signal: float = 1.0
    noise: float = 0.2
    scale: float = 1e-3

    @property
    def mild(self) -> float:
        """Return log(d) / m, the least keep probability of mild pruning, its constant taken as 1."""
        return math.log(self.dimension) / self.units

    @property
    def over(self) -> float:
        """Return 1 / (K m log d), the keep probability of over-pruning: 1 / log d edges on a signal coordinate."""
        return 1 / (self.classes * self.units * math.log(self.dimension))

    def own_edge(self, keep: Chance) -> Chance:
        """Return 1 - (1 - p)^m: the chance that a unit of class k keeps its weight on coordinate k."""
        return 1 - (1 - keep) ** self.units

    def any_edge(self, keep: Chance) -> Chance:
        """Return 1 - (1 - p)^(K m): the chance that a unit of any class sees coordinate k."""
        return 1 - (1 - keep) ** (self.classes * self.units)

    def every_class(self, keep: Chance) -> Chance:
        """Return (1 - (1 - p)^m)^K: the chance that every class keeps an own edge."""
        return self.own_edge(keep) ** self.classes

    def edges(self, keep: Chance) -> Chance:
        """Return K m p, the edges on a signal coordinate that are expected to stay."""
        return self.classes * self.units * keep

    @property
    def guess(self) -> float:
        """Return log K, the cross-entropy of a uniform guess; its accuracy is 1 / K."""
        return math.log(self.classes)


def samples(
    model: Model, count: int, seeds: Sequence[int], dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Return x [S, count, d] and y [S, count] int64; other examples for other seeds."""
    x = torch.empty(len(seeds), count, model.dimension, dtype=dtype)
    y = torch.empty(len(seeds), count, dtype=torch.int64)
    for place, seed in enumerate(seeds):
        generator = torch.Generator().manual_seed(seed)
        x[place].normal_(0, model.noise, generator=generator)
        y[place].random_(model.classes, generator=generator)
    return x + model.signal * torch.nn.functional.one_hot(y, model.dimension), y


def weights(model: Model, seeds: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the weights at initialization, [S, K, m, d]."""
    w = torch.empty(len(seeds), model.classes, model.units, model.dimension, dtype=dtype)
    for place, seed in enumerate(seeds):
        w[place].normal_(0, model.scale, generator=torch.Generator().manual_seed(seed))
    return w


def masks(model: Model, keep: Sequence[float], seeds: Sequence[int]) -> Tensor:
    """Return masks M = (U < p), bool [S, P, K, m, d], U that of the seed: what a lower p keeps, a higher one does.

    Raises:
        ValueError: a p outside [0, 1], or nothing to draw.
    """
    if not all(0 <= p <= 1 for p in keep) or not len(keep) or not len(seeds):
        raise ValueError(
            f"masks: keep and seeds must be some, each p in [0, 1], got keep {keep} and {len(seeds)} seeds"
        )
    uniform = torch.empty(len(seeds), 1, model.classes, model.units, model.dimension)
    for place, seed in enumerate(seeds):
        uniform[place].uniform_(generator=torch.Generator().manual_seed(seed))
    return uniform < torch.tensor(keep).view(-1, 1, 1, 1)


def outputs(w: Tensor, x: Tensor) -> Tensor:
    """Return F [S, P, K, n] of masked weights [S, P, K, m, d] and x [S, n, d]."""
    hidden = w.flatten(1, 3) @ x.mT
    return hidden.relu_().view(*w.shape[:4], -1).sum(3)


@dataclass(frozen=True)
class Trained:
    """What gradient descent ends with.

    Args:
        weights: masked, [S, P, K, m, d].
        loss: the training cross-entropy [S, P].
        steps: taken [S, P], int64.
    """

    weights: Tensor
    loss: Tensor
    steps: Tensor


def train(
    w: Tensor, masks: Tensor, x: Tensor, y: Tensor, rates: Sequence[float], *, until: float = 1e-3, most: int = 20_000
) -> Trained:
    """Descend from w, W <- W - eta (grad L * M), until the training loss is below `until`: every seed and p at once.

    A kept weight stays in the span of the examples, w_kr = M_kr * (w_kr(0) + sum_i a_kri x_i). So the hidden values at
    the examples are h_kr = h_kr(0) + G_kr a_kr, G_kr = X diag(M_kr) X^T, and it is a that is stepped.

    Args:
        w: [S, K, m, d]; masks: bool [S, P, K, m, d]; x: [S, n, d]; y: [S, n].
        rates: eta, one for each p.
        most: steps at which a run ends in any case.

    Raises:
        ValueError: as many rates as keep probabilities are needed, finite and > 0, and most >= 0.

    Cost: K m n^2 multiplications a run and step, in place of 2 K m n d, and memory for as many numbers; runs that have
        ended leave the batch.
    """
    seeds, keeps, classes, units, _ = masks.shape
    if len(rates) != keeps or not all(0 < rate < math.inf for rate in rates):
        raise ValueError(f"train: rates must be {keeps} finite numbers > 0, one for each keep probability, got {rates}")
    if most < 0:
        raise ValueError(f"train: most must be at least 0, got {most}")
    runs, n = seeds * keeps, x.shape[1]
    kept = masks.flatten(1, 3).to(x.dtype)
    pairs = (x[:, :, None] * x[:, None]).flatten(1, 2)
    gram = (kept @ pairs.mT).view(runs, classes * units, n, n)
    hidden = ((masks * w[:, None]).flatten(1, 3) @ x.mT).view(runs, classes * units, 1, n)
    onehot = torch.nn.functional.one_hot(y, classes).mT.to(x.dtype)
    right = onehot.repeat_interleave(keeps, 0)  # [runs, K, n]
    rate = torch.tensor(rates, dtype=x.dtype).repeat(seeds).view(-1, 1, 1) / n
    moved, ended = torch.zeros_like(hidden), torch.zeros_like(hidden)
    losses, steps, going = torch.zeros(runs, dtype=x.dtype), torch.zeros(runs, dtype=torch.int64), torch.arange(runs)
    for step in range(most + 1):
        logs = hidden.view(-1, classes, units, n).relu().sum(2).log_softmax(1)
        loss = -(logs * right).sum(1).mean(1)
        done = (loss < until) | loss.isnan() | (step == most)
        if done.any():
            over = going[done]
            losses[over], steps[over], ended[over] = loss[done], step, moved[done]
            going, gram, hidden, moved, right, rate, logs = (
                some[~done] for some in (going, gram, hidden, moved, right, rate, logs)
            )
            if not len(going):
                break
        pull = (right - logs.exp()) * rate  # minus eta dL/dF
        change = pull.repeat_interleave(units, 1).unsqueeze(2) * (hidden > 0)
        moved += change
        hidden += change @ gram
    final = (ended.view(seeds, -1, n) @ x).view(masks.shape).add_(w[:, None]).mul_(masks)
    return Trained(final, losses.view(seeds, keeps), steps.view(seeds, keeps))


@dataclass(frozen=True)
class Evaluation:
    """How nets do on examples: mean cross-entropy and accuracy [S, P], the share told right of each class [S, P, K]."""

    loss: Tensor
    accuracy: Tensor
    of_class: Tensor


def evaluate(w: Tensor, x: Tensor, y: Tensor) -> Evaluation:
    """Return cross-entropy and accuracies of masked weights [S, P, K, m, d] on x [S, n, d], y [S, n]."""
    right = torch.nn.functional.one_hot(y, w.shape[2]).mT.unsqueeze(1)  # [S, 1, K, n]
    found = outputs(w, x)
    loss = -(found.log_softmax(2) * right).sum(2).mean(2)
    told = (found.argmax(2, keepdim=True) == y[:, None, None]) * right
    return Evaluation(loss, told.sum((2, 3)) / y.shape[1], told.sum(3) / right.sum(3))


def own_edges(masks: Tensor) -> Tensor:
    """Return how many units of each class keep their weight on its signal coordinate, [S, P, K]."""
    return _own(masks).sum(3)


def signal_coefficients(w: Tensor) -> Tensor:
    """Return sum_r relu(w_kr[k]) of masked weights: what the class makes of its signal, [S, P, K]."""
    return _own(w).relu().sum(3)


def noise_norm(w: Tensor) -> Tensor:
    """Return the Frobenius norm of the masked weights on the d - K coordinates without signal, [S, P]."""
    return w[..., w.shape[2] :].flatten(2).norm(dim=2)


def _own(tensor: Tensor) -> Tensor:
    """Return entries (k, r, k) of [S, P, K, m, d] as [S, P, K, m]."""
    return tensor.diagonal(dim1=2, dim2=4).mT
