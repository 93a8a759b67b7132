"""What gradient scores share: a masked forward that leaves the model alone, and the mean gradient over batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..prunable import prunable

MODES = ("eval", "train")


def check_mode(who: str, mode: str) -> None:
    """Raise unless mode is "eval" or "train"."""
    if mode not in MODES:
        raise ValueError(f"{who}: mode must be 'eval' or 'train', got {mode!r}")


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
    """

    def __init__(self, model: nn.Module, masks: Mapping[str, Tensor] | None) -> None:
        self.model = model
        self.masks = masks or {}
        self.weights = {name: _wide(w.detach()).requires_grad_() for name, w in prunable(model).items()}
        self._others = {n: _wide(p.detach()) for n, p in model.named_parameters() if n not in self.weights}
        self._others |= {n: _wide(b.clone()) for n, b in model.named_buffers()}

    def __call__(self, x: Any) -> Any:
        """Return model(x) with the masked weights."""
        masked = {n: w * self.masks[n] if n in self.masks else w for n, w in self.weights.items()}
        return torch.func.functional_call(self.model, {**self._others, **masked}, (_wide(x),))

    def gradients(self, value: Tensor, *, create_graph: bool = False) -> dict[str, Tensor]:
        """Return d value / d weight of every prunable weight; zeros where the value does not depend on it."""
        if not value.requires_grad:
            return {name: torch.zeros_like(w) for name, w in self.weights.items()}
        grads = torch.autograd.grad(
            value, list(self.weights.values()), create_graph=create_graph, materialize_grads=True
        )
        return dict(zip(self.weights, grads, strict=True))


def _wide(x: Any) -> Any:
    return x.float() if isinstance(x, Tensor) and x.dtype in (torch.float16, torch.bfloat16) else x


def mean_over_batches(
    batches: Iterable[tuple[Any, Any]], gradient: Callable[[Any, Any], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """Return sum_b n_b gradient(x_b, y_b) / sum_b n_b: what one batch of all samples gives for a mean loss.

    Memory: one gradient and one batch at a time, whatever the number of batches.
    """
    total: dict[str, Tensor] = {}
    samples = 0
    for x, y in batches:
        samples += len(x)
        for name, g in gradient(x, y).items():
            total[name] = total[name].add_(g, alpha=len(x)) if name in total else g.detach() * len(x)
    if not samples:
        raise ValueError("score: batches must hold at least one sample, got none")
    return {name: g.div_(samples) for name, g in total.items()}
