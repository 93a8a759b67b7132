"""What gradient scores share: a masked forward that leaves the model alone, and the mean gradient over batches."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..prunable import layers, prunable

MODES = ("eval", "train")


def check_mode(who: str, mode: str) -> None:
    """Raise unless mode is "eval" or "train"."""
    check_option(who, "mode", mode, MODES)


def check_option(who: str, option: str, value: str | None, allowed: Iterable[str | None]) -> None:
    """Raise unless value is one of those allowed; None is one that needs no mention."""
    if value not in (known := tuple(allowed)):
        raise ValueError(f"{who}: {option} must be {' or '.join(map(repr, filter(None, known)))}, got {value!r}")


@contextmanager
def switched(model: nn.Module, mode: str, seed: int) -> Iterator[None]:
    """Put the model in a mode, with the global generators (dropout) seeded, and put both back as they were."""
    before = [(module, module.training) for module in model.modules()]
    devices = sorted({p.get_device() for p in model.parameters() if p.is_cuda})
    with torch.random.fork_rng(devices), torch.enable_grad():
        torch.default_generator.manual_seed(seed)
        for device in devices:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        model.train(mode == "train")
        try:
            yield
        finally:
            for module, training in before:
                module.training = training


class MaskedModel:
    """The model as a function of its prunable weights, each multiplied by its mask inside the graph.

    Buffers are copies, so that batch statistics of a train-mode pass do not reach the model. Half-precision weights,
    state and inputs are taken to float32: gradients of 1e-8 and squares of 1e5 would leave the range of float16.

    Args:
        model: left alone.
        masks: name -> bool or float mask; None: dense.
        start: values of weights that are not the model's.
        also: names of further parameters to take gradients of, such as biases.
    """

    def __init__(
        self,
        model: nn.Module,
        masks: Mapping[str, Tensor] | None,
        *,
        start: Mapping[str, Tensor] | None = None,
        also: Collection[str] = (),
    ) -> None:
        self.model = model
        self.masks = masks or {}
        free: dict[str, Tensor] = {**prunable(model), **{n: p for n, p in model.named_parameters() if n in also}}
        self.weights = {n: _wide(w.detach()).requires_grad_() for n, w in (free | dict(start or {})).items()}
        self._others = {n: _wide(p.detach()) for n, p in model.named_parameters() if n not in self.weights}
        self._others |= {n: _wide(b.clone()) for n, b in model.named_buffers()}

    def __call__(self, x: Any) -> Any:
        """Return model(x) with the masked weights."""
        masked = {n: w * self.masks[n] if n in self.masks else w for n, w in self.weights.items()}
        return torch.func.functional_call(self.model, {**self._others, **masked}, (_wide(x),))

    def gradients(self, value: Tensor, *, create_graph: bool = False) -> dict[str, Tensor]:
        """Return d value / d weight of every weight; zeros where the value does not depend on it."""
        if not value.requires_grad:
            return {name: torch.zeros_like(w) for name, w in self.weights.items()}
        grads = torch.autograd.grad(
            value, list(self.weights.values()), create_graph=create_graph, materialize_grads=True
        )
        return dict(zip(self.weights, grads, strict=True))


def _wide(x: Any) -> Any:
    return x.float() if isinstance(x, Tensor) and x.dtype in (torch.float16, torch.bfloat16) else x


Gradient = Callable[[Any, Any], dict[str, Tensor]]


def mean_over_batches(batches: Iterable[tuple[Any, Any]], gradient: Gradient) -> dict[str, Tensor]:
    """Return sum_b n_b gradient(x_b, y_b) / sum_b n_b: what one batch of all samples gives for a mean loss.

    Memory: one gradient and one batch at a time, whatever the number of batches.
    """
    total, samples = _accumulated(batches, gradient, len)
    return {name: g.div_(samples) for name, g in total.items()}


def sum_over_batches(batches: Iterable[tuple[Any, Any]], gradient: Gradient) -> dict[str, Tensor]:
    """Return sum_b gradient(x_b, y_b): a small last batch counts as much as a full one."""
    return _accumulated(batches, gradient, lambda x: 1)[0]


def _accumulated(
    batches: Iterable[tuple[Any, Any]], gradient: Gradient, weight: Callable[[Any], int]
) -> tuple[dict[str, Tensor], int]:
    total: dict[str, Tensor] = {}
    weights = 0
    for x, y in batches:
        n = weight(x)
        weights += n
        for name, g in gradient(x, y).items():
            total[name] = total[name].add_(g, alpha=n) if name in total else g.detach() * n
    if not weights:
        raise ValueError("score: batches must hold at least one sample, got none")
    return total, weights


def xavier(model: nn.Module, kinds: type | tuple[type, ...], seed: int) -> dict[str, Tensor]:
    """Draw new weights for the prunable layers of these kinds, N(0, 2 / (fan_in + fan_out)), on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: nn.init.xavier_normal_(torch.empty(m.weight.shape), generator=generator).to(_wide(m.weight.detach()))
        for name, (m, *_) in layers(model).items()
        if isinstance(m, kinds)
    }
