"""Weight-subnetworks: masks of a random network that make it a given one. Lemmas 2.4-2.6, Theorems 2.1 and 2.3.

A network is the list of its weights [out, in], fully connected, without biases, ReLU between layers. Each target weight
has its own block of k random hidden units, of which the mask keeps two with one incoming weight each:
    alpha x = relu(alpha x) - relu(-alpha x), u w near alpha once for u > 0 and once for u < 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


def forward(network: Sequence[Tensor], x: Tensor) -> Tensor:
    """Return W_l relu(... relu(W_1 x)) for the rows of x [N, d]: [N, out]."""
    for weight in network[:-1]:
        x = (x @ weight.T).relu()
    return x @ network[-1].T


@dataclass(frozen=True)
class Ticket:
    """A random network and what is kept of it; the weights are the network's own, untouched.

    Args:
        network: weights [out, in].
        masks: bool, of the same shapes.
    """

    network: list[Tensor]
    masks: list[Tensor]

    @property
    def active(self) -> list[int]:
        """Kept weights of each layer."""
        return [int(mask.sum()) for mask in self.masks]

    def compact(self) -> list[Tensor]:
        """Return the kept weights in fp64, without the hidden units that have none on one side: the same function."""
        weights = [(weight * mask).double() for weight, mask in zip(self.network, self.masks, strict=True)]
        for layer in range(len(weights) - 1):
            alive = self.masks[layer].any(1) & self.masks[layer + 1].any(0)
            weights[layer], weights[layer + 1] = weights[layer][alive], weights[layer + 1][:, alive]
        return weights


def random_network(sizes: Sequence[int], seed: int) -> list[Tensor]:
    """Return fp32 weights ~ U(-1, 1) of layers sizes[0] -> sizes[1] -> ..."""
    generator = torch.Generator().manual_seed(seed)
    pairs = zip(sizes[1:], sizes[:-1], strict=True)
    return [torch.empty(shape).uniform_(-1, 1, generator=generator) for shape in pairs]


def random_target(sizes: Sequence[int], seed: int) -> list[Tensor]:
    """Return fp64 weights with |w| <= 1 / sqrt(n_in) and spectral norms <= 1, as the theorems ask."""
    weights = [weight.double() / weight.shape[1] ** 0.5 for weight in random_network(sizes, seed)]
    return [weight / torch.linalg.matrix_norm(weight, 2).clamp(min=1) for weight in weights]


def search(u: Tensor, w: Tensor, alpha: Tensor, printed: bool = False) -> Tensor:
    """Return Lemma 2.4's two units of each block: the best with u > 0 and the best with u < 0.

    Best: |u w - alpha| least. Then the sup error over |x| <= 1 is at most the larger of both, whatever their signs.

    Args:
        u, w: outgoing and incoming weights of the units, [..., k].
        alpha: target weights, [...].
        printed: take max(|sign(u) w - alpha|, 1 - |u|) least, as the paper does.

    Returns:
        int64 [..., 2].

    Raises:
        ValueError: a block without both signs of u.
    """
    alpha = alpha.unsqueeze(-1)
    distance = torch.maximum((u.sign() * w - alpha).abs(), 1 - u.abs()) if printed else (u * w - alpha).abs()
    sides = torch.stack([u > 0, u < 0], -2)
    if not sides.any(-1).all():
        raise ValueError(f"lottery: each block of units must have both signs of u, got {u.shape[-1]} units a block")
    return distance.unsqueeze(-2).masked_fill(~sides, torch.inf).argmin(-1)


def linear_masks(first: Tensor, second: Tensor, target: Tensor, shared: bool = False) -> tuple[Tensor, Tensor]:
    """Return the masks that make x -> second relu(first x) near the linear map target: Lemma 2.5 for every output.

    Args:
        first: [H, m], m the inputs; H >= n m k, units beyond the largest such multiple are pruned.
        second: [n, H].
        target: [n, m].
        shared: let every target weight choose among all units that those before it left: H candidates, not H / (n m),
            for as many active weights.

    Returns:
        Masks of first and second: two weights of each per target weight, one first weight a unit.

    Raises:
        ValueError: too few units.
    """
    outputs, inputs = target.shape
    units = len(first) // target.numel()
    if not units:
        raise ValueError(f"lottery: the hidden layer must have {target.numel()} units or more, got {len(first)}")
    if shared:
        chosen = _choose_shared(first, second, target)
    else:
        used = units * target.numel()
        # Block (o, i) of k units: their incoming weights from i and their outgoing weights to o, [n, m, k].
        w = first[:used].view(outputs, inputs, units, inputs).diagonal(dim1=1, dim2=3).transpose(1, 2)
        u = second[:, :used].reshape(outputs, outputs, inputs, units).diagonal(dim1=0, dim2=1).movedim(-1, 0)
        block = torch.arange(target.numel()).view(outputs, inputs, 1)
        chosen = block * units + search(u, w, target)
    masks = torch.zeros_like(first, dtype=torch.bool), torch.zeros_like(second, dtype=torch.bool)
    masks[0][chosen, torch.arange(inputs).view(1, -1, 1)] = True
    masks[1][torch.arange(outputs).view(-1, 1, 1), chosen] = True
    return masks


def _choose_shared(first: Tensor, second: Tensor, target: Tensor) -> Tensor:
    """Return the units of each target weight, [n, m, 2]; those taken get an outgoing weight 0, which no side wants."""
    free = second.clone()
    chosen = torch.empty(*target.shape, 2, dtype=torch.int64)
    for output, weight in torch.cartesian_prod(*map(torch.arange, target.shape)).tolist():
        pair = search(free[output], first[:, weight], target[output, weight])
        chosen[output, weight] = pair
        free[:, pair] = 0
    return chosen


def theorem21(network: list[Tensor], target: list[Tensor]) -> Ticket:
    """Return the weight-subnetwork of a random network of depth 2 l that is near a target of depth l.

    Layers 2 i - 1 and 2 i make the target's layer i, by `linear_masks`; active weights: 4 a target weight. One target
    layer is Lemma 2.5, one of a single weight Lemma 2.4.

    Args:
        network: sizes d, H_1, n_1, H_2, n_2, ...; hidden layers wider than the target's n_i have units that no
            mask would keep: leave them out.
        target: sizes d, n_1, n_2, ...

    Reference: Malach et al. 2020 (arXiv 2002.00585), Theorem 2.1.
    """
    masks = [
        mask
        for first, second, layer in zip(network[::2], network[1::2], target, strict=True)
        for mask in linear_masks(first, second, layer)
    ]
    return Ticket(network, masks)


def theorem23(network: list[Tensor], target: list[Tensor], printed: bool = False, shared: bool = False) -> Ticket:
    """Return the weight-subnetwork of a random three-layer network that is near sum_i v*_i relu(<w*_i, x>).

    Neuron i has its own k1 / n units of the first and k2 / n of the second layer. Of the latter it takes one, l, and
    makes (v*_i / v_l) w*_i before it, by `linear_masks`: as relu(a x) = a relu(x) for a > 0 nothing is lost to
    v_l != v*_i. It is the nearest l with v_l v*_i > 0 and |v_l| >= |v*_i|, so that no target weight grows, or the
    largest where there is none. Active weights: exactly 4 d n + n. One neuron is Lemma 2.6.

    Args:
        network: [k1, d], [k2, k1], [1, k2].
        target: w* [n, d], v* [1, n].
        printed: take the l of the least |v_l - v*_i| and make w*_i before it, as the paper does.
        shared: see `linear_masks`: the first layer's units are all neurons'.

    Raises:
        ValueError: no v_l of a block has the sign of its v*.

    Reference: Malach et al. 2020 (arXiv 2002.00585), Theorem 2.3.
    """
    first, second, third = network
    weight, wanted = target[0], target[1].flatten()
    neurons = torch.arange(len(wanted))
    units = third.shape[1] // len(wanted)
    v = third[0, : units * len(wanted)].view(len(wanted), units)
    gap = v * torch.where(wanted < 0, -1, 1).unsqueeze(1) - wanted.abs().unsqueeze(1)
    distance = gap.abs() if printed else torch.where(gap < 0, 2 - gap, gap)
    best = distance.argmin(1)
    ratio = wanted / v[neurons, best]
    if (ratio < 0).any() and not printed:
        raise ValueError(f"lottery: a neuron needs an output weight of its sign, got none among its {units}")
    chosen = neurons * units + best
    masks = [torch.zeros_like(layer, dtype=torch.bool) for layer in network]
    inner = weight if printed else ratio.unsqueeze(1) * weight
    masks[0], masks[1][chosen] = linear_masks(first, second[chosen], inner, shared)
    masks[2][0, chosen] = True
    return Ticket(network, masks)
