"""Arguments that every method shares: checked, laid out, and handed to a driver of `ops`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from .. import ops
from ..ops import reference

Tensors = Tensor | Sequence[Tensor]
Transform = Literal["given", "abs", "square"]
Output = Literal["m", "counts", "weights", "bool", "indices"]
OUTPUTS: tuple[Output, ...] = ("m", "counts", "weights", "bool", "indices")

_TRANSFORMS = {"given": reference.GIVEN, "abs": reference.ABS, "square": reference.SQUARE}
_OUTPUTS = {"m": reference.M, "counts": reference.COUNTS, "weights": reference.WEIGHTS, "bool": reference.BOOL}
_OUTPUTS["indices"] = reference.BOOL
_FULL = "with at least one element"
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def _one_of(who: str, argument: str, value: object, allowed: Sequence[object]) -> None:
    if value not in allowed:
        raise ValueError(f"{who}: {argument} must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def _tensors(who: str, argument: str, given: Any, number: int | None = None) -> list[Tensor]:
    tensors = list(given) if isinstance(given, Iterable) and not isinstance(given, Tensor) else [given]
    if not all(isinstance(t, Tensor) for t in tensors):
        kinds = sorted({type(t).__name__ for t in tensors})
        raise ValueError(f"{who}: {argument} must be a tensor, or a list of tensors, {_FULL}, got {', '.join(kinds)}")
    if number is not None and len(tensors) != number:
        raise ValueError(f"{who}: {argument} must have {number} tensors like scores, got {len(tensors)}")
    return tensors


def _apart(inputs: list[Tensor], out: list[Tensor], *, in_place: bool) -> list[Tensor]:
    """The inputs, copied where they share memory with `out`; in_place: not where input i and out[i] are the same."""
    spans = [(t.data_ptr(), t.data_ptr() + t.nbytes) for t in out]
    result = []
    for i, t in enumerate(inputs):
        begin, end = t.data_ptr(), t.data_ptr() + t.nbytes
        shared = [j for j, (low, high) in enumerate(spans) if begin < high and low < end]
        same = in_place and shared == [i] and spans[i] == (begin, end) and t.numel() == out[i].numel()
        result.append(t.clone() if shared and not same else t)
    return result


def _real(dtype: torch.dtype) -> torch.dtype:
    """The type itself where it can hold m, else the one to ask for."""
    return dtype if dtype in _FLOATS else torch.float32


def must_broadcast(name: str, factor: Tensor, shape: torch.Size) -> None:
    """Raise ValueError, beginning with `name`, for a factor that does not broadcast to the shape of its scores."""
    try:
        fits = torch.broadcast_shapes(factor.shape, shape) == shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(f"{name} must broadcast to {list(shape)} like scores, got {list(factor.shape)}")


def _trailing(factor: Tensor, shape: torch.Size) -> Tensor:
    """The factor as one contiguous tensor that repeats along the leading dimensions of `shape`."""
    while factor.dim() > 0 and factor.shape[0] == 1 and factor.shape != shape:
        factor = factor.squeeze(0)
    if factor.shape != shape[len(shape) - factor.dim() :]:
        factor = factor.expand(shape)
    return factor.contiguous()


@dataclass(frozen=True)
class Arguments:
    """The checked arguments that every method shares."""

    who: str
    single: bool
    shapes: list[torch.Size]
    scores: list[Tensor]
    factors: list[Tensor]
    transform: int

    @classmethod
    def of(cls, who: str, scores: Tensors, transform: str, factor: Tensors | None, *, some: bool = True) -> Arguments:
        """Check; some: there must be elements."""
        single = isinstance(scores, Tensor)
        tensors = _tensors(who, "scores", scores)
        _one_of(who, "transform", transform, list(_TRANSFORMS))
        if some and sum(t.numel() for t in tensors) == 0:
            raise ValueError(f"{who}: scores must be a tensor, or a list of tensors, {_FULL}")
        for i, t in enumerate(tensors):
            name = "scores" if single else f"scores[{i}]"
            if t.dtype not in _FLOATS:
                raise ValueError(f"{who}: {name} must be float16, bfloat16, float32 or float64, got {t.dtype}")
            if t.device != tensors[0].device:
                raise ValueError(f"{who}: {name} must be on {tensors[0].device} like scores[0], got {t.device}")
            if t.device.type not in ("cpu", "cuda") or t.layout != torch.strided:
                raise ValueError(f"{who}: {name} must be dense on cpu or cuda, got {t.layout} on {t.device}")
        factors = cls._factors(who, single, tensors, factor)
        flat = [t.detach().contiguous() for t in tensors]
        return cls(who, single, [t.shape for t in tensors], flat, factors, _TRANSFORMS[transform])

    @staticmethod
    def _factors(who: str, single: bool, tensors: list[Tensor], factor: Tensors | None) -> list[Tensor]:
        if factor is None:
            return []
        given = _tensors(who, "factor", factor, len(tensors))
        result = []
        for i, (f, t) in enumerate(zip(given, tensors, strict=True)):
            name = "factor" if single else f"factor[{i}]"
            if f.dtype not in _FLOATS or f.device != t.device:
                raise ValueError(f"{who}: {name} must be floating on {t.device}, got {f.dtype} on {f.device}")
            must_broadcast(f"{who}: {name}", f, t.shape)
            result.append(_trailing(f.detach(), t.shape))
        return result

    @property
    def device(self) -> torch.device:
        return self.scores[0].device if self.scores else torch.device("cpu")

    @property
    def numel(self) -> int:
        return sum(t.numel() for t in self.scores)

    def outputs(
        self, output: str, weights: Tensors | None, dtype: torch.dtype | None, out: Tensors | None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Weights and fresh (or given) outputs for this vector, checked."""
        w = self._like("weights", weights) if weights is not None else list(self.scores)
        real = output in ("m", "weights")
        if dtype is not None and not (real and dtype in _FLOATS):
            raise ValueError(f"{self.who}: dtype must be None or floating, for 'm' and 'weights' only, got {dtype}")
        if output == "weights":
            dtypes = [dtype or t.dtype for t in w]
        elif output == "m":
            dtypes = [dtype or (t.dtype if t.dtype == torch.float64 else torch.float32) for t in self.scores]
        else:
            dtypes = [torch.int32 if output == "counts" else torch.bool] * len(self.scores)
        if out is None:
            device = self.device
            results = [torch.empty(s, dtype=d, device=device) for s, d in zip(self.shapes, dtypes, strict=True)]
        elif output == "indices":
            raise ValueError(f"{self.who}: out must be None for output 'indices', got a tensor")
        else:
            results = self._like("out", out)
            self._check_out(results, [_real(t.dtype) for t in results] if real and dtype is None else dtypes)
        if output == "m" and any(t.dtype == torch.float16 for t in results):
            raise ValueError(f"{self.who}: dtype must not be float16 for output 'm': 1/(s p) overflows it")
        return w, results

    def _check_out(self, out: list[Tensor], dtypes: list[torch.dtype]) -> None:
        for i, (t, d) in enumerate(zip(out, dtypes, strict=True)):
            if t.dtype != d or not t.is_contiguous():
                name = "out" if self.single else f"out[{i}]"
                raise ValueError(f"{self.who}: {name} must be contiguous {d}, got {t.dtype} with strides {t.stride()}")

    def _like(self, argument: str, given: Tensors) -> list[Tensor]:
        tensors = _tensors(self.who, argument, given, len(self.shapes))
        for i, (t, shape) in enumerate(zip(tensors, self.shapes, strict=True)):
            name = argument if self.single else f"{argument}[{i}]"
            if t.shape != shape or t.device != self.device:
                raise ValueError(
                    f"{self.who}: {name} must have shape {list(shape)} like scores on {self.device}, "
                    f"got {list(t.shape)} on {t.device}"
                )
            if argument == "weights" and t.dtype not in _FLOATS:
                raise ValueError(f"{self.who}: {name} must be float16, bfloat16, float32 or float64, got {t.dtype}")
        return [t.detach() if argument == "out" else t.detach().contiguous() for t in tensors]

    def code(self, output: str) -> int:
        return _OUTPUTS[output]

    def run(
        self,
        driver: Callable[..., None],
        *args: int,
        output: str,
        weights: Tensors | None = None,
        dtype: torch.dtype | None = None,
        out: Tensors | None = None,
        reread: Sequence[str] = (),
    ) -> Any:
        """Write the driver's result into fresh (or given) outputs.

        reread: which of "scores" and "weights" the driver may read again after it has written.
        """
        scores, factors, w, results = self.prepare(output, weights, dtype, out, reread)
        with self.errors():
            driver(ops.Vector(scores, factors, self.transform, self.code(output), w, results), *args)
        return self.result(results, output)

    def prepare(
        self,
        output: str,
        weights: Tensors | None,
        dtype: torch.dtype | None,
        out: Tensors | None,
        reread: Sequence[str],
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
        """Scores, factors and weights that stay as they are while results are written, and these."""
        w, results = self.outputs(output, weights, dtype, out)
        written = [] if out is None else results
        scores, factors = (_apart(x, written, in_place="scores" not in reread) for x in (self.scores, self.factors))
        w = scores if weights is None else _apart(w, written, in_place="weights" not in reread)
        return scores, factors, w, results

    def ask(self, driver: Callable[..., int], *args: int) -> int:
        """What the driver answers about the scores."""
        with self.errors():
            return driver(ops.Vector(self.scores, self.factors, self.transform, reference.BOOL, [], []), *args)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn what drivers raise into ValueErrors that name tensor, index and value."""
        try:
            yield
        except ops.BadScore as error:
            raise self.bad(error.index, error.expected) from None
        except ops.NoPositiveScore:
            raise ValueError(f"{self.who}: scores must have a positive element, got {self.numel} zeros") from None
        except ops.OutOfReach as error:
            raise ValueError(f"{self.who}: {error}") from None

    def result(self, results: list[Tensor], output: str) -> Tensor | list[Tensor]:
        # Operators do not tell autograd what they wrote: a backward that needs what was there before must raise.
        torch.autograd.graph.increment_version([t for t in results if not t.is_inference()])
        if output == "indices":
            starts = itertools.accumulate((r.numel() for r in results), initial=0)
            return torch.cat([r.view(-1).nonzero().view(-1) + start for r, start in zip(results, starts, strict=False)])
        return results[0] if self.single else results

    def bad(self, index: int, expected: str = "finite and non-negative") -> ValueError:
        for i, (score, shape) in enumerate(zip(self.scores, self.shapes, strict=True)):
            if index < score.numel():
                factor = self.factors[i] if self.factors else None
                value = float(reference.values_between(index, index + 1, score, factor, self.transform))
                name = "scores" if self.single else f"scores[{i}]"
                return ValueError(
                    f"{self.who}: {name} of shape {list(shape)} must be {expected}, got {value} at flat index {index}"
                )
            index -= score.numel()
        raise IndexError(index)

    def one_of(self, argument: str, value: object, allowed: Sequence[object]) -> None:
        _one_of(self.who, argument, value, allowed)

    def whole(self, argument: str, value: int, low: int, high: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"{self.who}: {argument} must be an integer in [{low}, {high}], got {value!r}")
        return value

    def count(self, argument: str, value: int) -> int:
        """A number of elements to keep."""
        return self.whole(argument, value, 1, self.numel)

    def randomness(self, seed: int, stream: int) -> tuple[int, int]:
        """The seed mod 2^64 as the int64 that operators take, and the stream."""
        if not isinstance(seed, int):
            raise ValueError(f"{self.who}: seed must be an integer, got {seed!r}")
        return ((seed + (1 << 63)) % (1 << 64)) - (1 << 63), self.whole("stream", stream, 0, (1 << 32) - 1)
