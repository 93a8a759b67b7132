"""A frozen tiny network, its batch, and a meter of the bytes that live tensors hold."""

import weakref

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sparseprune.prunable import prunable


def net() -> nn.Sequential:
    g = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    for p in model.parameters():
        p.data = torch.randn(p.shape, generator=g, dtype=torch.float64)
    return model


def batch(n=12, seed=1):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, 4, generator=g, dtype=torch.float64), torch.randint(3, (n,), generator=g)


def some_masks(model, density=0.6):
    g = torch.Generator().manual_seed(2)
    return {name: torch.rand(w.shape, generator=g) < density for name, w in prunable(model).items()}


def gradients(model, weights, x, y, loss=nn.functional.cross_entropy):
    """dL/dw at other values of the model's weights."""
    found = torch.func.grad(lambda w: loss(torch.func.functional_call(model, w, (x,)), y))(weights)
    return {n: g.detach() for n, g in found.items()}


def counts(total, density, steps):
    """How many weights `prune` keeps at each step of the exponential schedule."""
    return [round(total * density ** (t / steps)) for t in range(1, steps + 1)]


def skeletonize(model, batches, kept, saliency, revive=False):
    """The loop of de Jorge et al. 2021 and its code written out, with the counts given.

    saliency(dense weights, weights of the pruned net, their gradient averaged over batches) -> name -> tensor.
    """
    dense = {n: w.detach() for n, w in prunable(model).items()}
    keep = {n: torch.ones_like(w, dtype=torch.bool) for n, w in dense.items()}
    for k in kept:
        pruned = {n: w * keep[n] for n, w in dense.items()}
        each = [gradients(model, pruned, x, y) for x, y in batches]
        s = saliency(dense, pruned, {n: sum(g[n] for g in each) / len(each) for n in dense})
        if not revive:
            least = min(v.min() for v in s.values())
            s = {n: v.where(keep[n], least) for n, v in s.items()}
        cut = torch.cat([v.flatten() for v in s.values()]).topk(k).values[-1]
        keep = {n: v >= cut for n, v in s.items()}
    return keep


class LiveBytes(TorchDispatchMode):
    """`peak`: the most bytes that storages made inside this context held at one time."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self._seen = weakref.WeakSet()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in given:
                self._add(tensor.untyped_storage())
        return result

    def _add(self, storage):
        if storage not in self._seen:
            self._seen.add(storage)
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._drop, storage.nbytes())

    def _drop(self, size):
        self.now -= size
