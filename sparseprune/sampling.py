"""Sketches and exact selections over tensors of any size, the same bits on every device and number of threads.

`scores` is a tensor or a list of tensors, seen as one logical vector; results have the same form. `transform` and
`factor` are fused into the pass over the scores: p is proportional to `score * factor` ("given"), `|score * factor|`
("abs") or `score^2 * factor` ("square"). The law: docs/sampler.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from . import ops
from .ops import expected_nnz, races, reference
from .ops.sketch import BadScore, NoPositiveScore
from .ops.top_k import NotFinite

Tensors = Tensor | Sequence[Tensor]
Transform = Literal["given", "abs", "square"]

_TRANSFORMS = {"given": reference.GIVEN, "abs": reference.ABS, "square": reference.SQUARE}
_OUTPUTS = {"m": reference.M, "counts": reference.COUNTS, "weights": reference.WEIGHTS, "bool": reference.BOOL}
_OUTPUTS["indices"] = reference.BOOL
_FULL = "with at least one element"
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def _one_of(who: str, argument: str, value: object, allowed: Sequence[object]) -> None:
    if value not in allowed:
        raise ValueError(f"{who}: {argument} must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def _whole(who: str, argument: str, value: int, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{who}: {argument} must be an integer in [{low}, {high}], got {value!r}")
    return value


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
        same = in_place and shared == [i] and spans[i] == (begin, end)
        result.append(t.clone() if shared and not same else t)
    return result


def _trailing(factor: Tensor, shape: torch.Size) -> Tensor:
    """The factor as one contiguous tensor that repeats along the leading dimensions of `shape`."""
    while factor.dim() > 0 and factor.shape[0] == 1 and factor.shape != shape:
        factor = factor.squeeze(0)
    if factor.shape != shape[len(shape) - factor.dim() :]:
        factor = factor.expand(shape)
    return factor.contiguous()


@dataclass(frozen=True)
class _Vector:
    """The checked arguments that every method shares."""

    who: str
    single: bool
    shapes: list[torch.Size]
    scores: list[Tensor]
    factors: list[Tensor]
    transform: int

    @classmethod
    def of(cls, who: str, scores: Tensors, transform: str, factor: Tensors | None) -> _Vector:
        single = isinstance(scores, Tensor)
        tensors = _tensors(who, "scores", scores)
        _one_of(who, "transform", transform, list(_TRANSFORMS))
        if sum(t.numel() for t in tensors) == 0:
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
            try:
                fits = torch.broadcast_shapes(f.shape, t.shape) == t.shape
            except RuntimeError:
                fits = False
            if not fits:
                raise ValueError(f"{who}: {name} must broadcast to {list(t.shape)} like scores, got {list(f.shape)}")
            result.append(_trailing(f.detach(), t.shape))
        return result

    @property
    def numel(self) -> int:
        return sum(t.numel() for t in self.scores)

    def outputs(self, output: str, weights: Tensors | None, dtype: torch.dtype | None, out: Tensors | None):
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
            device = self.scores[0].device
            results = [torch.empty(s, dtype=d, device=device) for s, d in zip(self.shapes, dtypes, strict=True)]
        elif output == "indices":
            raise ValueError(f"{self.who}: out must be None for output 'indices', got a tensor")
        else:
            results = self._like("out", out)
            self._check_out(results, [t.dtype for t in results] if real and dtype is None else dtypes)
            w = _apart(w, results, in_place=True)
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
            if t.shape != shape or t.device != self.scores[0].device:
                raise ValueError(
                    f"{self.who}: {name} must have shape {list(shape)} like scores on {self.scores[0].device}, "
                    f"got {list(t.shape)} on {t.device}"
                )
            if argument == "weights" and t.dtype not in _FLOATS:
                raise ValueError(f"{self.who}: {name} must be float16, bfloat16, float32 or float64, got {t.dtype}")
        return [t.detach() if argument == "out" else t.detach().contiguous() for t in tensors]

    def apart(self, out: Tensors | None, results: list[Tensor], *, in_place: bool) -> tuple[list[Tensor], list[Tensor]]:
        """Scores and factors that stay as they are while `results` is written."""
        written = [] if out is None else results
        return _apart(self.scores, written, in_place=in_place), _apart(self.factors, written, in_place=in_place)

    def result(self, results: list[Tensor], output: str) -> Tensor | list[Tensor]:
        # Operators do not tell autograd what they wrote: a backward that needs what was there before must raise.
        torch.autograd.graph.increment_version([t for t in results if not t.is_inference()])
        if output == "indices":
            return torch.cat([r.view(-1) for r in results]).nonzero().view(-1)
        return results[0] if self.single else results

    def bad(self, index: int, expected: str = "finite and non-negative") -> ValueError:
        for i, (score, shape) in enumerate(zip(self.scores, self.shapes, strict=True)):
            if index < score.numel():
                factor = self.factors[i] if self.factors else None
                value = float(reference.score_values(score, factor, self.transform)[index])
                name = "scores" if self.single else f"scores[{i}]"
                return ValueError(
                    f"{self.who}: {name} of shape {list(shape)} must be {expected}, got {value} at flat index {index}"
                )
            index -= score.numel()
        raise IndexError(index)

    def check(self) -> None:
        """Raise for the first score that is NaN, infinite or negative, or where none is positive."""
        _, masses, bad = torch.ops.sparseprune.score_tiles(self.scores, self.factors, self.transform)
        if int(bad) >= 0:
            raise self.bad(int(bad))
        if not bool(masses.any()):
            raise self.none_positive()

    def none_positive(self) -> ValueError:
        return ValueError(f"{self.who}: scores must have a positive element, got {self.numel} zeros")


def _signed(who: str, seed: int) -> int:
    """The seed mod 2^64 as the int64 that operators take."""
    if not isinstance(seed, int):
        raise ValueError(f"{who}: seed must be an integer, got {seed!r}")
    return ((seed + (1 << 63)) % (1 << 64)) - (1 << 63)


def multinomial(
    scores: Tensors,
    draws: int,
    *,
    seed: int,
    stream: int = 0,
    transform: Transform = "given",
    factor: Tensors | None = None,
    output: Literal["m", "counts", "weights", "bool", "indices"] = "m",
    weights: Tensors | None = None,
    dtype: torch.dtype | None = None,
    out: Tensors | None = None,
) -> Tensor | list[Tensor]:
    """Draw `draws` elements with replacement, p proportional to the scores: m_i = count_i / (draws p_i).

    E[m_i] = 1 for every positive score: p is the quantised law that is sampled exactly (docs/sampler.md).

    Args:
        scores: tensor or list of tensors, float16/bfloat16/float32/float64, finite and non-negative after `transform`.
        draws: s, 1 <= s < 2^31.
        seed, stream: counters of the Philox generator; the same pair gives the same bits on every device.
        transform, factor: fused score; a factor broadcasts to the shape of its score tensor.
        output: "m" (float32, float64 for float64 scores), "counts" (int32), "weights" (weights * m), "bool" (count > 0)
            or "indices" (int64, flat indices of the logical vector, ascending).
        weights: what m multiplies for "weights"; the scores themselves if absent.
        dtype: another floating type for "m" (not float16) or "weights": one rounding.
        out: contiguous tensors to write into.
    Returns: a tensor, or a list like `scores`.
    Raises: ValueError naming tensor, flat index and value for a NaN, infinite or negative score; for scores all zero.
    Cost: 2 reads of the scores and 1 write, whatever s; O(numel / 4096) memory beside the output. Copies are made of
        inputs that are strided or overlap `out`, and of a factor that does not just repeat over leading dimensions.
    Reference: Bar & Giryes 2023, arXiv:2305.17559, Algorithm 1.
    """
    who = "multinomial"
    vector = _Vector.of(who, scores, transform, factor)
    _one_of(who, "output", output, list(_OUTPUTS))
    _whole(who, "draws", draws, 1, (1 << 31) - 1)
    _whole(who, "stream", stream, 0, (1 << 32) - 1)
    seed = _signed(who, seed)
    w, results = vector.outputs(output, weights, dtype, out)
    read, factors = vector.apart(out, results, in_place=True)
    try:
        ops.sketch_multinomial(
            read, draws, seed=seed, stream=stream, transform=vector.transform, factors=factors,
            output=_OUTPUTS[output], weights=w, out=results,
        )  # fmt: skip
    except BadScore as error:
        raise vector.bad(error.index) from None
    except NoPositiveScore:
        raise vector.none_positive() from None
    return vector.result(results, output)


def top_k(
    scores: Tensors,
    k: int,
    *,
    transform: Transform = "given",
    factor: Tensors | None = None,
    output: Literal["bool", "weights", "indices"] = "bool",
    weights: Tensors | None = None,
    out: Tensors | None = None,
) -> Tensor | list[Tensor]:
    """Keep exactly the k largest scores over all tensors; of equal ones those of lower flat index.

    Args: as in `multinomial`; the scores may be negative or zero. 1 <= k <= number of elements.
    Returns: bool masks, the weights with the rest set to 0, or ascending flat indices.
    Raises: ValueError naming tensor, flat index and value for a NaN or infinite score.
    Cost: about 3 reads of the scores and 1 write, a few more for short or awkward vectors; no sort, no concatenation;
        O(numel / 4096) memory, and copies as in `multinomial`, of scores written in place too.
    """
    vector = _Vector.of("top_k", scores, transform, factor)
    _one_of(vector.who, "output", output, ["bool", "weights", "indices"])
    _whole(vector.who, "k", k, 1, vector.numel)
    w, results = vector.outputs(output, weights, None, out)
    read, factors = vector.apart(out, results, in_place=False)  # it may read once more after a first write
    _select(vector, read, factors, vector.transform, k, _OUTPUTS[output], w, results)
    return vector.result(results, output)


def _select(vector: _Vector, scores, factors, transform: int, k: int, output: int, weights, out) -> None:
    try:
        ops.top_k(scores, k, transform=transform, factors=factors, output=output, weights=weights, out=out)
    except NotFinite:
        flat = 0
        for i, score in enumerate(scores):
            v = reference.score_values(score, factors[i] if factors else None, transform)
            wrong = (~v.isfinite()).nonzero()
            if len(wrong):
                raise vector.bad(flat + int(wrong[0]), "finite") from None
            flat += score.numel()
        raise


def _race(vector: _Vector, k: int, seed: int, stream: int, purpose: int):
    """(values, keys, masks) of a race that keeps min(k, positive scores) elements."""
    _whole(vector.who, "k", k, 1, vector.numel)
    _whole(vector.who, "stream", stream, 0, (1 << 32) - 1)
    seed = _signed(vector.who, seed)
    vector.check()
    values, keys = races.race_keys(vector.scores, vector.factors, vector.transform, seed, stream, purpose)
    kept = min(k, sum(int(v.count_nonzero()) for v in values))
    masks = [torch.empty_like(key, dtype=torch.bool) for key in keys]
    _select(vector, keys, [], reference.GIVEN, kept, reference.BOOL, keys, masks)
    return values, keys, masks


def without_replacement(
    scores: Tensors,
    k: int,
    *,
    seed: int,
    stream: int = 0,
    transform: Transform = "given",
    factor: Tensors | None = None,
    output: Literal["bool", "weights", "indices"] = "bool",
    weights: Tensors | None = None,
    out: Tensors | None = None,
) -> Tensor | list[Tensor]:
    """Keep k elements by k successive draws without replacement, each with p proportional to what is left.

    Keys score / (-log u), the k largest: the same law as drawing one by one (Efraimidis & Spirakis 2006).

    Args: as in `multinomial`.
    Returns: exactly k kept, or every positive score where there are fewer: bool masks, masked weights or flat indices.
    Raises: ValueError as in `multinomial`.
    Cost: 16 bytes an element for values and keys in fp64, then `top_k` on the keys.
    """
    vector = _Vector.of("without_replacement", scores, transform, factor)
    _one_of(vector.who, "output", output, ["bool", "weights", "indices"])
    w, results = vector.outputs(output, weights, None, out)
    _, _, masks = _race(vector, k, seed, stream, races.WITHOUT_REPLACEMENT)
    for mask, weight, result in zip(masks, w, results, strict=True):
        result.copy_(mask.view(result.shape) if output != "weights" else weight * mask.view(weight.shape))
    return vector.result(results, output)


def priority(
    scores: Tensors,
    k: int,
    *,
    seed: int,
    stream: int = 0,
    transform: Transform = "given",
    factor: Tensors | None = None,
    output: Literal["m", "weights", "bool", "indices"] = "m",
    weights: Tensors | None = None,
    dtype: torch.dtype | None = None,
    out: Tensors | None = None,
) -> Tensor | list[Tensor]:
    """Keep exactly k elements, unbiased: keys score / u, the k largest, m = max(1, tau / score), tau = key k + 1.

    Args: as in `multinomial`. With at most k positive scores all of them are kept with m = 1.
    Returns: m (float32, float64 for float64 scores), weights * m, bool masks or flat indices.
    Raises: ValueError as in `multinomial`.
    Cost: 16 bytes an element for values and keys, then `top_k` on the keys.
    Reference: Duffield, Lund, Thorup 2007, "Priority sampling for estimation of arbitrary subset sums".
    """
    vector = _Vector.of("priority", scores, transform, factor)
    _one_of(vector.who, "output", output, ["m", "weights", "bool", "indices"])
    w, results = vector.outputs(output, weights, dtype, out)
    values, keys, masks = _race(vector, k, seed, stream, races.PRIORITY)
    tau = max(float(key.masked_fill_(mask, 0.0).max()) for key, mask in zip(keys, masks, strict=True) if key.numel())
    writer = reference.FlatWriter(vector.scores, _OUTPUTS[output], w, results)
    for whole, mask in zip(values, masks, strict=True):
        for v, kept in zip(whole.split(races.CHUNK), mask.split(races.CHUNK), strict=True):
            m = torch.where(kept, (torch.full_like(v, tau) / v).clamp(min=1.0), 0.0)  # a number / v would round twice
            writer.write(kept.to(torch.int64), m)
    return vector.result(results, output)


def draws_for_nnz(scores: Tensors, nnz: int, *, transform: Transform = "given", factor: Tensors | None = None) -> int:
    """The least s for which s draws with replacement keep `nnz` distinct elements on average: sum 1-(1-p_i)^s >= nnz.

    Args: as in `multinomial`; 1 <= nnz <= number of elements.
    Raises: ValueError as in `multinomial`, or where no s < 2^31 reaches `nnz` (it names what can be reached).
    Cost: 2 reads of the scores (fp64: 3), 8 bytes an element; 31 evaluations on at most a few thousand bins.
    """
    vector = _Vector.of("draws_for_nnz", scores, transform, factor)
    _whole(vector.who, "nnz", nnz, 1, vector.numel)
    vector.check()
    try:
        return expected_nnz.draws_for_nnz(vector.scores, vector.factors, vector.transform, nnz)
    except ValueError as error:
        raise ValueError(f"{vector.who}: {error}") from None
