"""Batches for scoring: real ones on the model's device, or ones, normal, chi and sparse inputs with random labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from .prunable import prunable

Batch = tuple[Any, Any]
Moments = tuple[Tensor, Tensor]
KINDS = ("ones", "normal", "chi", "sparse")
BATCH = 256
CHI_SAMPLES = 128


def synthetic(kind: str, shape: Sequence[int], *, seed: int, moments: Moments | None = None) -> Tensor:
    """Draw one batch of inputs without data, on the CPU: the same on every device.

    "ones": one image of ones. "normal": 256 images N(mean, std). "chi": one image, each entry sqrt(mean_i x_i^2) over
    128 numbers x_i ~ N(0, 1). "sparse": 256 images; at each location (channel, row, column) one image of them, chosen
    uniformly, is N(mean, std) and the others are zero, so every row of the data has exactly one non-zero.

    Args:
        kind: one of the four.
        shape: of one sample, such as (C, H, W).
        seed: of the generator.
        moments: mean and standard deviation, each broadcasting to `shape`; None: 0 and 1.

    Returns:
        float32 [1 or 256, *shape].

    Raises:
        ValueError: another kind.

    Reference: Bar & Giryes 2023, arXiv:2305.17559, sections 5, 6 and 8.
    """
    check_kind("synthetic", kind)
    generator = torch.Generator().manual_seed(seed)
    if kind == "ones":
        return torch.ones(1, *shape)
    if kind == "chi":
        return torch.randn(CHI_SAMPLES, *shape, generator=generator).square().mean(0, keepdim=True).sqrt()
    mean, std = moments or (torch.zeros(()), torch.ones(()))
    if kind == "normal":
        return torch.randn(BATCH, *shape, generator=generator) * std + mean
    values = torch.randn(1, *shape, generator=generator) * std + mean
    chosen = torch.randint(BATCH, (1, *shape), generator=generator)
    return torch.zeros(BATCH, *shape).scatter_(0, chosen, values)


def check_kind(who: str, kind: object) -> None:
    """Raise unless kind names synthetic inputs."""
    if kind not in KINDS:
        raise ValueError(f"{who}: inputs must be one of {', '.join(map(repr, KINDS))} or a tensor, got {kind!r}")


def moments_of(data: Iterable[Batch]) -> Moments:
    """Return mean and standard deviation of the inputs: per channel for images [B, C, H, W], else over all entries.

    Returns:
        Two float32 CPU tensors, [C, 1, 1] or scalars.

    Cost: one pass over the data, sums in float64.
    """
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for x, *_ in data:
        dims = [d for d in range(x.dim()) if x.dim() != 4 or d != 1]
        flat = x.detach().to("cpu", torch.float64)
        count += math.prod(x.shape[d] for d in dims)
        total, squares = total + flat.sum(dims), squares + flat.square().sum(dims)
    mean = total / count
    std = (squares / count - mean.square()).clamp_min(0).sqrt()
    shape = (-1, 1, 1) if mean.dim() else ()
    return mean.float().reshape(shape), std.float().reshape(shape)


def sample_shape(
    model: nn.Module, *, data: Iterable[Batch] | None = None, input_shape: Sequence[int] | None = None
) -> tuple[int, ...]:
    """Return the shape of one input: that of `data`, `input_shape`, `model.input_shape`, or of a first nn.Linear.

    Raises:
        ValueError: none of these is there, or one that is no shape.
    """
    if data is not None:
        return tuple(next(iter(data))[0].shape[1:])
    given = input_shape if input_shape is not None else getattr(model, "input_shape", None)
    if given is not None:
        if not isinstance(given, Sequence) or not all(isinstance(size, Integral) and int(size) > 0 for size in given):
            raise ValueError(f"prune: input_shape must be positive integers such as (3, 32, 32), got {given!r}")
        return tuple(given)
    first = next((m for m in model.modules() if hasattr(m, "weight")), None)
    if isinstance(first, nn.Linear):
        return (first.in_features,)
    raise ValueError(
        "prune: input_shape must be known to make inputs, got nothing to tell it by: pass input_shape=(C, H, W), "
        "inputs=<tensor> or data=<batches>"
    )


def random_labels(model: nn.Module, x: Tensor, *, seed: int) -> Tensor:
    """Draw uniform labels for x; the number of classes is dimension 1 of the model's output (eval mode).

    Returns:
        int64 [B], or [B, ...] for outputs [B, classes, ...], on the device of x.

    Raises:
        ValueError: the output is not a tensor [B, classes, ...].
    """
    before = [(module, module.training) for module in model.modules()]
    try:
        with torch.no_grad():
            output = model.eval()(x)
    finally:
        for module, training in before:
            module.training = training
    if not isinstance(output, Tensor) or output.dim() < 2:
        got = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"prune: data must be given where the output is not [B, classes, ...], got output {got}")
    shape = (output.shape[0], *output.shape[2:])
    return torch.randint(output.shape[1], shape, generator=torch.Generator().manual_seed(seed)).to(x.device)


@dataclass(frozen=True)
class OnDevice:
    """Real batches, moved to a device as they come; iterating twice gives them twice."""

    data: Iterable[Batch]
    device: torch.device

    def __iter__(self) -> Iterator[Batch]:
        for x, y in self.data:
            yield x.to(self.device), y.to(self.device) if isinstance(y, Tensor) else y


def check_data(data: Iterable[Batch]) -> None:
    """Raise unless data is a non-empty re-iterable of (input, target) batches."""
    if isinstance(data, Iterator):
        raise ValueError("prune: data must be iterable twice (a list or a DataLoader), got an iterator or generator")
    if not isinstance(data, Iterable):
        raise ValueError(f"prune: data must be an iterable of batches such as a DataLoader, got {type(data).__name__}")
    first = next(iter(data), None)
    if first is None:
        raise ValueError("prune: data must hold at least one batch, got an empty loader")
    if not isinstance(first, (tuple, list)) or len(first) != 2 or not isinstance(first[0], Tensor):
        raise ValueError(f"prune: data must be batches (input, target), got {type(first).__name__}")
    if len(first[0]) == 0:
        raise ValueError("prune: data must hold at least one sample, got an empty first batch")


def source(
    model: nn.Module,
    score: Any,
    *,
    data: Iterable[Batch] | None,
    inputs: str | Tensor | None,
    redraw: bool | None = None,
    input_shape: Sequence[int] | None,
    seed: Callable[[int], int],
) -> Callable[[int], Iterable[Batch]]:
    """Return what gives the batches of pruning iteration t = 1, 2, ...: real ones, or synthetic as asked for.

    Real data is used where it is given, no `inputs` is, and the score is not data-free; then come `inputs`, and the
    score's own default. Targets of synthetic inputs are random.

    Args:
        model: only read, and run once where labels must be drawn.
        score: says what it needs.
        data, inputs, redraw, input_shape: as in `prune`.
        seed: iteration -> seed of its generator; iteration 0 is what is drawn once.

    Raises:
        ValueError: bad data, empty inputs or inputs of an unknown name, a score that needs data without any, or no way
            to tell the input's shape.
    """
    if data is not None:
        check_data(data)
    if isinstance(inputs, Tensor):
        if inputs.dim() == 0 or len(inputs) == 0:
            raise ValueError(f"prune: inputs must hold at least one sample, got shape {list(inputs.shape)}")
    elif inputs is not None:
        check_kind("prune", inputs)
    if score.needs == "nothing":
        return lambda t: []
    weight = next(iter(prunable(model).values()))
    if data is not None and inputs is None and not getattr(score, "data_free", False):
        real = OnDevice(data, weight.device)
        return lambda t: real
    kind = inputs if inputs is not None else getattr(score, "inputs", "ones" if score.needs == "inputs" else None)
    if kind is None:
        raise ValueError(f"prune: data or inputs must be given for score {score.name!r}, got neither")

    def batches(seed: int) -> list[Batch]:
        x = kind if isinstance(kind, Tensor) else synthetic(kind, shape, seed=seed, moments=moments)
        x = x.to(weight.device, weight.dtype if x.is_floating_point() else x.dtype)
        return [(x, random_labels(model, x, seed=seed + 1) if score.needs == "targets" else None)]

    shape = () if isinstance(kind, Tensor) else sample_shape(model, data=data, input_shape=input_shape)
    moments = moments_of(data) if data is not None and kind in ("normal", "sparse") else None
    if redraw if redraw is not None else isinstance(kind, str) and kind == "chi":
        return lambda t: batches(seed(t))
    once = batches(seed(0))
    return lambda t: once
