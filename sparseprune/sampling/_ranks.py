"""Arguments that are spread over ranks: plain tensors with a process group, or DTensors.

Nothing is raised before all ranks have told each other what they were given and what is wrong with it: then all raise
the same, and none waits for another.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from ..ops import reference
from ..ops.layout import Runs
from ..ops.ranks import Ranks
from ..ops.sharded import Holding, ShardedVector
from ..shards import Shard, common_groups, is_dtensor, local, placement
from ._arguments import Arguments, Tensors, must_broadcast

F = TypeVar("F", bound=Callable[..., Any])
Group = Any  # a torch.distributed.ProcessGroup, or None


def _on_cpu(method: F) -> F:
    """Make tensors on the CPU where no device is named, whatever torch.set_default_device says."""

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        with torch.device("cpu"):
            return method(*args, **kwargs)

    return cast(F, call)


def arguments(who: str, scores: Tensors, transform: str, factor: Tensors | None, group: Group) -> Arguments:
    """The checked arguments of one process, or of one rank of `group` or of the mesh of DTensors."""
    scores = _listed(scores)
    some = [scores] if isinstance(scores, Tensor) else scores if isinstance(scores, list) else []
    if group is not None or any(is_dtensor(t) for t in some):
        return SharedArguments.on_ranks(who, scores, transform, factor, group)
    return Arguments.of(who, scores, transform, factor)


@dataclass
class Agreed:
    """What the ranks know after they have met.

    starts: where tensors begin in the logical vector, by rank and tensor; those of DTensors are all in the first row.
    """

    numel: int
    starts: list[list[int]]
    owned: list[bool]
    copies: bool
    wide: bool
    narrow: bool


@dataclass(frozen=True)
class SharedArguments(Arguments):
    """Checked arguments of one rank."""

    ranks: Any
    shards: list[Shard]  # empty: plain tensors
    wrong: list[str] = field(default_factory=list)
    counts: list[tuple[str, int]] = field(default_factory=list)
    agreed: list[Agreed] = field(default_factory=list)

    @classmethod
    @_on_cpu
    def on_ranks(cls, who: str, scores: Tensors, transform: str, factor: Tensors | None, group: Any) -> SharedArguments:
        """Check this rank's part; `group` is None for DTensors."""
        single = isinstance(scores, Tensor)
        tensors: list[Any] = [scores] if single else scores if isinstance(scores, list) else []
        if group is None:
            ranks = Ranks(common_groups(who, [t.device_mesh for t in tensors if is_dtensor(t)]))
        elif isinstance(group, dist.ProcessGroup):
            ranks = Ranks([group])
        else:
            raise ValueError(f"{who}: group must be a process group that this rank is in, got {group!r}")
        shards: list[Shard] = []
        try:
            if group is not None and any(is_dtensor(t) for t in tensors):
                raise ValueError(f"{who}: group must be None for DTensors, whose mesh says it, got {group}")
            if group is None and all(isinstance(t, Tensor) for t in tensors):
                names = [f"{who}: scores" if single else f"{who}: scores[{i}]" for i in range(len(tensors))]
                shards = [Shard.of(name, t) for name, t in zip(names, tensors, strict=True)]
                scores = [local(t) for t in tensors]
                factor = _local_factor(who, factor, shards, single)
            given = Arguments.of(who, scores[0] if single and shards else scores, transform, factor, some=False)
        except Exception as error:  # kept until the ranks meet
            return cls(who, single, [], [], [], 0, ranks, shards, [_text(error)])
        return cls(who, single, given.shapes, given.scores, given.factors, given.transform, ranks, shards)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Keep an error until the ranks meet."""
        try:
            yield
        except Exception as error:  # the memory of one rank may be too small, say: no other one must wait for it
            self.wrong.append(_text(error))

    # ------------------------------------------------------------ checks
    def one_of(self, argument: str, value: object, allowed: Sequence[object]) -> None:
        with self.deferred():
            super().one_of(argument, value, allowed)

    def whole(self, argument: str, value: int, low: int, high: int) -> int:
        with self.deferred():
            super().whole(argument, value, low, high)
        return value

    def count(self, argument: str, value: int) -> int:
        self.counts.append((argument, value))  # the number of all elements is not known yet
        return value

    def randomness(self, seed: int, stream: int) -> tuple[int, int]:
        with self.deferred():
            return super().randomness(seed, stream)
        return 0, 0

    def _like(self, argument: str, given: Tensors) -> list[Tensor]:
        return super()._like(argument, self._localised(argument, given))

    def _localised(self, argument: str, given: Any) -> Any:
        """The local parts of tensors that must be spread like the scores."""
        if not self.shards:
            return given
        tensors: list[Any] = [given] if isinstance(given, Tensor) else list(given)
        for i, (t, shard) in enumerate(zip(tensors, self.shards, strict=False)):
            if isinstance(t, Tensor) and placement(t) != placement(shard.like):
                name = argument if self.single else f"{argument}[{i}]"
                raise ValueError(f"{self.who}: {name} must be {_kind(shard.like)} like scores, got {_kind(t)}")
        return local(tensors[0]) if self.single else [local(t) for t in tensors]

    # ------------------------------------------------------------ the meeting
    def meet(self, *arguments: object) -> Agreed:
        """Exchange errors and layouts; raise on every rank what is wrong on the first one where something is."""
        layout = [(tuple(s.like.shape), s.key, s.shape.numel()) for s in self.shards]
        mine = {
            "wrong": self.wrong[0] if self.wrong else None,
            "arguments": repr((self.who, *arguments, self.transform, self.counts)),
            "sizes": [s.numel() for s in self.scores],
            "layout": layout,
            "wide": any(t.dtype == torch.float64 for t in (*self.scores, *self.factors)),
            "factors": bool(self.factors),
        }
        everyone = self.ranks.gather(mine)
        for other in everyone:
            if other["wrong"]:
                raise ValueError(other["wrong"])
        for rank, other in enumerate(everyone):
            self._same(rank, "arguments", everyone[0]["arguments"], other["arguments"])
            if other["sizes"]:
                filled = next(x for x in everyone if x["sizes"])
                self._same(rank, "factors", filled["factors"], other["factors"])
        self.agreed.append(self._agreed(everyone))
        for argument, value in self.counts:
            Arguments.whole(self, argument, value, 1, self.numel)
        return self.agreed[0]

    def _same(self, rank: int, what: str, first: object, other: object) -> None:
        if other != first:
            raise ValueError(
                f"{self.who}: {what} must be the same on every rank, got {first} on one and {other} on number {rank}"
            )

    def _agreed(self, everyone: list[dict[str, Any]]) -> Agreed:
        wide = any(other["wide"] for other in everyone)
        narrow = not (wide or any(other["factors"] for other in everyone) or self.transform == reference.SQUARE)
        if self.shards:
            sizes = [[torch.Size(shape).numel() for shape, _, _ in everyone[0]["layout"]]]
            owned, copies = self._owners([other["layout"] for other in everyone])
        else:
            sizes, copies = [other["sizes"] for other in everyone], False
            owned = [True] * len(self.scores)
        numel, starts = 0, []
        for row in sizes:
            starts.append([])
            for size in row:
                starts[-1].append(numel)
                numel += size
        if numel == 0:
            raise ValueError(f"{self.who}: scores must be tensors with at least one element on some rank, got none")
        return Agreed(numel, starts, owned, copies, wide, narrow)

    def _owners(self, layouts: list[list[Any]]) -> tuple[list[bool], bool]:
        """Of ranks that hold the same elements the first one answers for them."""
        shapes = [[shape for shape, _, _ in layout] for layout in layouts]
        if any(row != shapes[0] for row in shapes):
            raise ValueError(f"{self.who}: scores must have the same shapes on every rank, got {shapes}")
        owned, copies = [], False
        for i, column in enumerate(zip(*layouts, strict=True)):
            first: dict[Any, int] = {}
            for rank, (_, key, _) in enumerate(column):
                first.setdefault(key, rank)
            held = sum(column[rank][2] for rank in first.values())
            numel = torch.Size(column[0][0]).numel()
            if held != numel:
                name = "scores" if self.single else f"scores[{i}]"
                raise ValueError(f"{self.who}: {name} must be on the ranks as a whole, got {held} of {numel} elements")
            owned.append(first[column[self.ranks.rank][1]] == self.ranks.rank)
            copies |= sum(n for _, _, n in column) > held
        return owned, copies

    def _runs(self) -> Runs:
        (agreed,) = self.agreed
        if self.shards:
            return Runs.join(
                [s.runs(i, start) for i, (s, start) in enumerate(zip(self.shards, agreed.starts[0], strict=True))]
            )
        starts = torch.tensor(agreed.starts[self.ranks.rank], dtype=torch.int64)
        sizes = torch.tensor([s.numel() for s in self.scores], dtype=torch.int64)
        number = torch.arange(len(starts))
        return Runs(number, torch.zeros_like(number), starts, sizes).where(sizes > 0)

    # ------------------------------------------------------------ work
    @_on_cpu
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
        prepared: Any = None
        if not self.wrong:
            with self.deferred():
                out = _listed(out)
                prepared = self.prepare(output, weights, dtype, out, reread)
        self.meet(args, output, dtype)
        scores, factors, w, results = prepared
        with self.errors():
            driver(self.vector(scores, factors, output, w, results), *args)
        # `result` tells autograd what was written of local tensors only: a DTensor counts for itself.
        given = [out] if isinstance(out, Tensor) else out or []
        torch.autograd.graph.increment_version([t for t in given if is_dtensor(t) and not t.is_inference()])
        return self.result(results, output)

    @_on_cpu
    def ask(self, driver: Callable[..., int], *args: int) -> int:
        self.meet(args, getattr(driver, "keywords", None))
        with self.errors():
            return driver(self.vector(self.scores, self.factors, "bool", [], []), *args)

    def vector(
        self, scores: list[Tensor], factors: list[Tensor], output: str, weights: list[Tensor], results: list[Tensor]
    ) -> Any:
        (agreed,) = self.agreed
        held = Holding(scores, factors, weights, results, self._runs(), agreed.owned)
        return ShardedVector(
            self.ranks, held, numel=agreed.numel, transform=self.transform, output=self.code(output),
            wide=agreed.wide, narrow=agreed.narrow, copies=agreed.copies, device=self.device,
        )  # fmt: skip

    @property
    def numel(self) -> int:
        return self.agreed[0].numel

    def result(self, results: list[Tensor], output: str) -> Any:
        if output == "indices":
            return self._indices(results)
        local = super().result(results, output)
        if not self.shards:
            return local
        wrapped = [shard.wrap(r) for shard, r in zip(self.shards, results, strict=True)]
        return wrapped[0] if self.single else wrapped

    def _indices(self, results: list[Tensor]) -> Tensor:
        """The places in the logical vector of this rank's own selected elements."""
        runs, found = self._runs(), [torch.empty(0, dtype=torch.int64, device=self.device)]
        for i, result in enumerate(results):
            own = runs.where(runs.tensor == i)
            offset, start = own.offset.to(result.device), own.start.to(result.device)
            at = result.view(-1).nonzero().view(-1)
            row = torch.searchsorted(offset, at, right=True) - 1
            found.append(start[row] + at - offset[row])
        return torch.cat(found)

    def bad(self, index: int, expected: str = "finite and non-negative") -> ValueError:
        """The same error on every rank: the owner tells the value."""
        runs, text = self._runs(), None
        mine = ((runs.start <= index) & (index < runs.start + runs.length)).nonzero().view(-1).tolist()
        for row in mine[:1]:
            own = int(runs.tensor[row])
            at = index - int(runs.start[row]) + int(runs.offset[row])
            factor = self.factors[own] if self.factors else None
            value = float(reference.values_between(at, at + 1, self.scores[own], factor, self.transform))
            name = "scores" if self.single else f"scores[{own}]"
            if self.shards:
                shape, flat = self.shards[own].like.shape, index - self.agreed[0].starts[0][own]
            else:
                name, shape, flat = f"{name} on rank {self.ranks.rank} of the group", self.shapes[own], at
            text = f"{name} of shape {list(shape)} must be {expected}, got {value} at flat index {flat}"
        text = next(t for t in self.ranks.gather(text) if t is not None)
        return ValueError(f"{self.who}: {text}")


def _listed(given: Any) -> Any:
    """What is looked through more than once: a list of what any iterable yields; else as it is."""
    return list(given) if isinstance(given, Iterable) and not isinstance(given, Tensor) else given


def _text(error: Exception) -> str:
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"


def _kind(tensor: Any) -> str:
    placements = f", {tuple(tensor.placements)}" if is_dtensor(tensor) else ""
    return f"{'a DTensor' if placements else 'a plain tensor'} {list(tensor.shape)}{placements}"


def _local_factor(who: str, factor: Any, shards: list[Shard], single: bool) -> Any:
    """This rank's part of the factors of DTensors: DTensors alike, or plain tensors that broadcast to the whole."""
    if factor is None or not shards:
        return factor
    factors: list[Any] = [factor] if isinstance(factor, Tensor) else list(factor)
    parts = list(factors)
    for i, (f, shard) in enumerate(zip(factors, shards, strict=False)):
        name, like = "factor" if single else f"factor[{i}]", shard.like
        if is_dtensor(f):
            if placement(f) != placement(like):
                raise ValueError(f"{who}: {name} must be plain or {_kind(like)} like scores, got {_kind(f)}")
            parts[i] = local(f)
        elif isinstance(f, Tensor):
            must_broadcast(f"{who}: {name}", f, like.shape)
            parts[i] = shard.part(f)
    return parts[0] if single else parts
