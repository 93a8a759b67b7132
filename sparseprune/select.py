"""From scores to masks: hard threshold, sketches and random masks of exactly k weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, cast

import torch
from torch import Tensor

from . import sampling
from .shards import bounds, nonzero

Scores = Mapping[str, Tensor]
Kept = int | Mapping[str, int]
Draw = Callable[[list[Tensor], int, int], list[Tensor]]


class Selector(Protocol):
    """A frozen dataclass that turns scores into masks."""

    def select(self, scores: Scores, kept: Kept, *, seed: int) -> dict[str, Tensor]:
        """Return one mask per score; `kept` is one global count, or layer name -> count."""
        ...


@dataclass(frozen=True)
class Threshold:
    """Keep the largest scores, of any sign; of equal ones those of lower flat index.

    Cost: that of `sampling.top_k`.
    """

    name: ClassVar[str] = "threshold"

    def select(self, scores: Scores, kept: Kept, *, seed: int = 0) -> dict[str, Tensor]:
        """Return bool masks with exactly `kept` True.

        Args:
            scores: name -> floating tensor, finite.
            kept: one global count or name -> count.
            seed: not used; selectors share one signature.
        """
        return _each(scores, kept, lambda tensors, k, _: _list(sampling.top_k(tensors, k)), torch.bool)


@dataclass(frozen=True)
class ThresholdRescaled:
    """Keep what `Threshold` keeps of each ranking, and scale it: m = 1/sqrt(k/n), so that sum_i m_i^2 = n.

    With random scores and folded into the weights once, this keeps the variance of every pre-activation, and so the
    tangent kernel's limit.

    Reference: Yang & Wang 2023, arXiv:2203.14328; the rescaled random pruning of its experiments.
    """

    name: ClassVar[str] = "threshold_rescaled"

    def select(self, scores: Scores, kept: Kept, *, seed: int = 0) -> dict[str, Tensor]:
        """Return masks (float32; float64 for float64 scores) with exactly `kept` non-zeros; arguments of `Threshold`.

        For one global count k and n are those of all layers together; for counts by layer, each layer's own.
        """

        def draw(tensors: list[Tensor], k: int, stream: int) -> list[Tensor]:
            factor = math.sqrt(sum(t.numel() for t in tensors) / max(k, 1))
            hard = _list(sampling.top_k(tensors, k))
            return [mask.to(_m_dtype(t)) * factor for mask, t in zip(hard, tensors, strict=True)]

        return _each(scores, kept, draw, None)


@dataclass(frozen=True)
class _Sketch:
    """A sketch of signed scores: p proportional to |score| is that of the sum of the scores with the least variance."""

    rescale: bool = True
    target: Literal["nnz", "draws"] = "nnz"
    per_layer: bool = False
    name: ClassVar[str]

    def __post_init__(self) -> None:
        if self.target not in ("nnz", "draws"):
            raise ValueError(f"{type(self).__name__}: target must be 'nnz' or 'draws', got {self.target!r}")

    def select(self, scores: Scores, kept: Kept, *, seed: int) -> dict[str, Tensor]:
        """Return masks with `kept` non-zeros on average (target "nnz"), or of `kept` draws.

        Args:
            scores: name -> floating tensor, finite; their absolute values are the weights of the draw.
            kept: one global count or name -> count. With target "nnz", asked for every weight, or every one of non-zero
                score, it draws nothing: m = 1.
            seed: of the sampler; layers drawn apart use streams 0, 1, ...

        Raises:
            ValueError: more asked for than the non-zero scores can give.
        """
        output = "m" if self.rescale else "bool"
        sampler = getattr(sampling, self.name)
        law = "systematic" if self.name == "systematic" else "multinomial"  # a Poisson sketch keeps as many: docs

        def draw(tensors: list[Tensor], k: int, stream: int) -> list[Tensor]:
            s = sampling.draws_for_nnz(tensors, k, law=law, transform="abs") if self.target == "nnz" else k
            if self.name == "poisson" and s > 1 << 30:
                raise ValueError(f"Poisson: kept must be reached by 2^30 draws, got {k}, which takes {s}")
            return _list(sampler(tensors, s, seed=seed, stream=stream, transform="abs", output=output))

        if self.per_layer:
            kept = _as_the_threshold(scores, kept)
        return _each(scores, kept, draw, _dtype(self.rescale), type(self).__name__ if self.target == "nnz" else None)


@dataclass(frozen=True)
class Multinomial(_Sketch):
    """Draw weights with replacement, p_i proportional to |score_i|: m_i = count_i/(s p_i), so that E[m] = 1.

    Args:
        rescale: masks m (float32; float64 for float64 scores), else bool masks count > 0.
        target: "nnz": s such that `kept` distinct weights are expected; "draws": s = `kept`.
        per_layer: where one global count is asked for, the hard threshold's count of each layer, p of each layer's own;
            False: one p over all layers together.

    Raises:
        ValueError: another target.

    Reference: Bar & Giryes 2023, arXiv:2305.17559, Algorithm 1.
    """

    name: ClassVar[str] = "multinomial"


@dataclass(frozen=True)
class Poisson(_Sketch):
    """Draw a Poisson count of mean s p_i for each weight on its own: m_i = count_i/(s p_i). Else as `Multinomial`."""

    name: ClassVar[str] = "poisson"


@dataclass(frozen=True)
class Systematic(_Sketch):
    """Counts that are floor or ceil of s p_i, by one random offset: m_i = count_i/(s p_i). Else as `Multinomial`."""

    name: ClassVar[str] = "systematic"


@dataclass(frozen=True)
class Bernoulli:
    """Keep each weight on its own with probability pi_i = min(1, c |score_i|), `kept` on average: m_i = 1/pi_i.

    Args:
        rescale: masks m (float32; float64 for float64 scores), else bool masks.
    """

    rescale: bool = True
    name: ClassVar[str] = "bernoulli"

    def select(self, scores: Scores, kept: Kept, *, seed: int) -> dict[str, Tensor]:
        """Return masks with `kept` non-zeros on average; arguments and errors as those of `Priority`."""
        return _unequal(scores, kept, sampling.bernoulli, seed, self.rescale, "Bernoulli")


@dataclass(frozen=True)
class WithoutReplacement:
    """Draw exactly k weights, one after another without replacement, each with p ∝ |score| among those left.

    The papers' binary "random mask". For one global count, the paper first counts what the hard global threshold keeps
    in each layer, then draws that many inside each layer. The threshold ranks scores by their sign as well; the draws
    use absolute values, and a zero score, which no draw can give, ranks last.

    Args:
        per_layer: keep the hard threshold's count of each layer; False: one draw over all layers together.

    Reference: Bar & Giryes 2023, arXiv:2305.17559, section 8.
    """

    per_layer: bool = True
    name: ClassVar[str] = "without_replacement"

    def select(self, scores: Scores, kept: Kept, *, seed: int) -> dict[str, Tensor]:
        """Return bool masks with exactly `kept` True.

        Args:
            scores: name -> floating tensor, finite; their absolute values are the weights of the draw.
            kept: one global count or name -> count. Asked for every weight it draws nothing.
            seed: of the sampler; layers drawn apart use streams 0, 1, ...

        Raises:
            ValueError: more asked for than the non-zero scores can give.
        """

        def draw(tensors: list[Tensor], k: int, stream: int) -> list[Tensor]:
            return _list(sampling.without_replacement(tensors, k, seed=seed, stream=stream, transform="abs"))

        if self.per_layer:
            kept = _as_the_threshold(scores, kept)
        return _each(scores, kept, draw, torch.bool, "WithoutReplacement")


@dataclass(frozen=True)
class Priority:
    """Keep exactly k weights with p growing with |score|, unbiased: keys |score|/u, m = max(1, tau/|score|), E[m] = 1.

    Args:
        rescale: masks m (float32; float64 for float64 scores), else bool masks.

    Reference: Duffield, Lund, Thorup 2007, "Priority sampling for estimation of arbitrary subset sums".
    """

    rescale: bool = True
    name: ClassVar[str] = "priority"

    def select(self, scores: Scores, kept: Kept, *, seed: int) -> dict[str, Tensor]:
        """Return masks with exactly `kept` non-zeros.

        Args:
            scores: name -> floating tensor, finite; their absolute values are the weights of the draw.
            kept: one global count or name -> count. Asked for every weight it draws nothing: m = 1.
            seed: of the sampler; layers drawn apart use streams 0, 1, ...

        Raises:
            ValueError: more asked for than the non-zero scores can give.
        """
        return _unequal(scores, kept, sampling.priority, seed, self.rescale, "Priority")


_ALL = (Threshold, ThresholdRescaled, Multinomial, Poisson, Systematic, Bernoulli, Priority, WithoutReplacement)
_SELECTORS = {cls.name: cls for cls in _ALL}


def names() -> list[str]:
    """Return the names of the selectors, sorted."""
    return sorted(_SELECTORS)


def get(select: str | Selector) -> Selector:
    """Return the selector of that name with its defaults, or the object itself.

    Raises:
        ValueError: no selector of that name, or an object without a `select` method.
    """
    if isinstance(select, str) and select in _SELECTORS:
        return _SELECTORS[select]()
    if isinstance(select, (str, type)) or not callable(getattr(select, "select", None)):
        raise ValueError(f"prune: select must be one of {names()} or an object with a select method, got {select!r}")
    return cast(Selector, select)


def _each(
    scores: Scores, kept: Kept, draw: Draw, dtype: torch.dtype | None, sampler: str | None = None
) -> dict[str, Tensor]:
    """Draw over all layers together, or over each with its own count.

    A count of zero needs no draw. For a sampler that is held to its count neither does one of every weight, nor one of
    every weight that can be drawn: there the mask is 1, which no draw with replacement would reach.
    """

    def one(tensors: list[Tensor], k: int, stream: int) -> list[Tensor]:
        total = sum(t.numel() for t in tensors)
        if not 0 <= k <= total:
            raise ValueError(f"select: kept must be in [0, {total}], the number of scores, got {k}")
        usable = _nonzero(tensors) if sampler else total
        if k == 0 or (sampler and k == total):
            return [torch.full_like(t, k > 0, dtype=dtype or _m_dtype(t)) for t in tensors]
        if k > usable:
            raise ValueError(f"{sampler}: kept must be at most {usable}, the number of non-zero scores, got {k}")
        if sampler and k == usable:
            return [(t != 0).to(dtype or _m_dtype(t)) for t in tensors]
        return draw(tensors, k, stream)

    if isinstance(kept, int):
        return dict(zip(scores, one(list(scores.values()), kept, 0), strict=True))
    if kept.keys() != scores.keys():
        raise ValueError(f"select: kept must have the layers of scores, {sorted(scores)}, got {sorted(kept)}")
    return {name: one([score], kept[name], stream)[0] for stream, (name, score) in enumerate(scores.items())}


def _unequal(
    scores: Scores, kept: Kept, sampler: Callable[..., Any], seed: int, rescale: bool, who: str
) -> dict[str, Tensor]:
    """Choices without replacement that keep elements with different probabilities, m being what makes up for them."""
    output = "m" if rescale else "bool"

    def draw(tensors: list[Tensor], k: int, stream: int) -> list[Tensor]:
        return _list(sampler(tensors, k, seed=seed, stream=stream, transform="abs", output=output))

    return _each(scores, kept, draw, _dtype(rescale), who)


def _nonzero(tensors: Iterable[Tensor]) -> int:
    return sum(map(nonzero, tensors))


def _as_the_threshold(scores: Scores, kept: Kept) -> Kept:
    """One global count as what the hard threshold keeps in each layer, zero scores ranked last: no draw gives them."""
    if not isinstance(kept, int) or not 0 < kept < _nonzero(scores.values()):
        return kept
    return {name: nonzero(mask) for name, mask in Threshold().select(_zeros_last(scores), kept).items()}


def _zeros_last(scores: Scores) -> Scores:
    least = min(bounds(score)[0] for score in scores.values())
    return scores if least >= 0 else {n: s.masked_fill(s == 0, 2 * least) for n, s in scores.items()}


def _m_dtype(score: Tensor) -> torch.dtype:
    return torch.float64 if score.dtype is torch.float64 else torch.float32


def _dtype(rescale: bool) -> torch.dtype | None:
    return None if rescale else torch.bool


def _list(result: Any) -> list[Tensor]:
    return list(result)
