"""The synaptic flow: gradients of the sum of outputs of a net of values >= 0, in range at any depth."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from ..prunable import prunable
from ._linear import Linearized
from ._scaled import Scaled, scaled, times_power
from ._stored import Stored, stored, value

# Scores are dR/dw * w times the power of two that brings R into 2^-32 ... 2^64. Where the largest score of a layer then
# is below 2^-60, its small ones would come too close to the end of float32.
_FLOW = (-32, 64)
_FAINTEST = 2.0**-60
# Numbers of state below which a net is small.
_SMALL = 1 << 21
# The largest score of a pass in float64, in the float32 that it is handed back in.
_WIDE_PEAK = 100

Batches = Iterable[tuple[Any, Any]]
Masks = Mapping[str, Tensor]


@dataclass(frozen=True)
class Flow:
    """What flows: R is the sum of outputs of a net whose prunable weights are v = |m w|^power, all other state |s|.

    Args:
        who: the name of the score, for its errors.
        power: 1 or 2.
        linear: run the linearized net.
    """

    who: str
    power: int = 1
    linear: bool = False

    def scores(self, model: nn.Module, batches: Batches, masks: Masks | None) -> dict[str, Tensor]:
        """Return |dR/dv * v| of every prunable weight; see `SynFlow`."""
        weights = prunable(model)
        if not weights:
            raise ValueError(
                f"{self.who}: model must hold an nn.Linear or nn.Conv2d, got {type(model).__name__} with none"
            )
        double = any(w.dtype == torch.float64 for w in weights.values())
        if not double:
            try:
                scores, peaks = self._pass(model, weights, batches, masks or {}, torch.float32)
            except OverflowError:
                pass
            else:
                if all(math.isfinite(peak) and peak >= _FAINTEST for peak in peaks.values()):
                    return scores
        scores, peaks = self._pass(model, weights, batches, masks or {}, torch.float64)
        for name, peak in peaks.items():
            if not math.isfinite(peak):
                raise OverflowError(f"{self.who}: scores must be finite in float64, got a peak of {peak} in {name!r}")
        if double:
            return scores
        # From the top of float32 down, for the widest range below.
        shift = _WIDE_PEAK - math.frexp(max(peaks.values(), default=0.0))[1]
        return {name: times_power(s, shift).to(torch.float32) for name, s in scores.items()}

    def _pass(
        self, model: nn.Module, weights: Mapping[str, Tensor], batches: Batches, masks: Masks, dtype: torch.dtype
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Return the scores in that dtype, and the largest score of each layer that is in use and not all masked."""
        leaves = {name: stored(w, masks.get(name), self.power, dtype) for name, w in weights.items()}
        shift: int | None = None
        stand_ins: dict[int, Tensor] = {
            id(w): leaves[n] if w.device.type == "cpu" else value(leaves[n]) for n, w in weights.items()
        }
        with _of_absolute_values(model, stand_ins, dtype):
            for x, _ in batches:
                with Linearized() if self.linear else nullcontext():
                    flow = model(scaled(x.detach().to(dtype)) if x.is_floating_point() else x)
                if not isinstance(flow, Tensor):
                    raise ValueError(f"{self.who}: model must return one tensor, got {type(flow).__name__}")
                flow = flow.sum()
                exponent = flow.exponent if isinstance(flow, Scaled) else 0
                flow = flow.as_subclass(Tensor)
                bits = math.frexp(flow.item())[1]
                if shift is None:
                    shift = min(max(bits + exponent, _FLOW[0]), _FLOW[1]) - (bits + exponent)
                seed = torch.full_like(flow, 2.0 ** min(max(shift + exponent, -1000), 1000))
                _backward(flow, seed, list(leaves.values()))
        if shift is None:
            raise ValueError(f"{self.who}: batches must hold at least one sample, got none")
        return _absolute(leaves)


def _backward(flow: Tensor, seed: Tensor, leaves: Sequence[Stored]) -> None:
    """Add gradient times value to the scores of each leaf that the flow passes."""
    with torch._C.DisableTorchFunctionSubclass():
        ways = [(leaf, get_gradient_edge(at)) for leaf in leaves for at in (leaf, leaf.written) if at is not None]
    # Outside: someone's own backward may take a leaf for its value.
    grads = torch.autograd.grad(flow, [at for _, at in ways], seed, allow_unused=True)
    with torch._C.DisableTorchFunctionSubclass():
        owners = Counter(g.data_ptr() for g in grads if g is not None)
        for (leaf, _), g in zip(ways, grads, strict=True):
            if g is not None:
                # One gradient may serve two weights that are added, or be an expanded number.
                shared = owners[g.data_ptr()] > 1 or not g.is_contiguous()
                leaf.collect(g * value(leaf).detach() if shared else g.mul_(value(leaf).detach()))


def _absolute(leaves: Mapping[str, Stored]) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Return the scores in absolute value, and the peak of each layer that is in use and not all masked."""
    scores, peaks = {}, {}
    with torch._C.DisableTorchFunctionSubclass():
        for name, leaf in leaves.items():
            s = leaf.scores
            if s is None:
                scores[name] = leaf.new_zeros(leaf.shape).as_subclass(Tensor)
                continue
            low, high = leaf.bounds or (float(bound) for bound in s.aminmax())
            scores[name] = s if low >= 0 else s.abs_()
            peak = max(high, -low)
            if not peak < _FAINTEST or value(leaf).any():
                peaks[name] = peak
    return scores, peaks


@contextmanager
def _full_precision(device: str) -> Iterator[None]:
    """Keep out autocast and cuDNN's 10-bit TF32 products, which blur the order, and its sums of varying order."""
    cudnn = torch.backends.cudnn
    exact = cudnn.flags(enabled=cudnn.enabled, deterministic=True, allow_tf32=False)
    with torch.autocast(device, enabled=False), exact:
        yield


@contextmanager
def _without_onednn(size: int) -> Iterator[None]:
    """At one sample oneDNN's set-up of a convolution costs a small net more than its speed brings."""
    if size >= _SMALL or not torch.backends.mkldnn.is_available():
        yield
        return
    before = torch.backends.mkldnn.set_flags(_enabled=False)
    try:
        yield
    finally:
        torch.backends.mkldnn.set_flags(_enabled=before[0])


@contextmanager
def _of_absolute_values(model: nn.Module, instead: dict[int, Tensor], dtype: torch.dtype) -> Iterator[None]:
    """Run the model in eval mode on the absolute values of its state, then put all back.

    `instead` maps the id of a state tensor to what stands for it.
    """
    before: list[tuple[dict[str, Any], str, Tensor]] = []
    modes = [(module, module.training) for module in model.modules()]
    tables = {id(module._parameters) for module, _ in modes if isinstance(module, nn.Embedding)}  # where flow begins
    for module, _ in modes:
        transient = module._non_persistent_buffers_set
        for own in (module._parameters, module._buffers):
            before += [
                (own, n, t) for n, t in own.items() if t is not None and t.is_floating_point() and n not in transient
            ]
    try:
        for own, name, t in before:
            if id(t) not in instead:
                instead[id(t)] = t.detach().abs().to(dtype)
            own[name] = scaled(instead[id(t)]) if id(own) in tables else instead[id(t)]
        for module, _ in modes:
            vars(module)["training"] = False  # a tenth of the time of nn.Module's own setter
        state = list(instead.values())
        with torch.enable_grad(), _full_precision(state[0].device.type), _without_onednn(sum(t.numel() for t in state)):
            yield
    finally:
        for own, name, t in before:
            own[name] = t
        for module, training in modes:
            vars(module)["training"] = training
