"""What every rank of a real process group checks of sparseprune.sampling; worker.py runs it."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

from sparseprune import sampling
from sparseprune.ops.reference import TILE

ALL = ("m", "counts", "weights", "bool", "indices")
METHODS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "multinomial": (lambda x, **o: sampling.multinomial(x, 3000, seed=3, **o), ALL),
    "poisson": (lambda x, **o: sampling.poisson(x, 3000, seed=3, **o), ALL),
    "systematic": (lambda x, **o: sampling.systematic(x, 3000, seed=3, **o), ALL),
    "bernoulli": (lambda x, **o: sampling.bernoulli(x, 900, seed=3, **o), ALL),
    "priority": (lambda x, **o: sampling.priority(x, 900, seed=3, **o), ALL),
    "without_replacement": (
        lambda x, **o: sampling.without_replacement(x, 900, seed=3, **o),
        ("bool", "weights", "indices"),
    ),
    "top_k": (lambda x, **o: sampling.top_k(x, 4000, **o), ("bool", "weights", "indices")),
}


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def error_of(call: Any) -> str:
    try:
        call()
    except ValueError as error:
        return str(error)
    raise AssertionError("no error")


def same_error(call: Any) -> str:
    """The error of `call`, which must be one for all ranks."""
    texts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(texts, error_of(call))
    assert len(set(texts)) == 1, texts
    return texts[0]


def case_lists_of_plain_tensors() -> None:
    rank, size = dist.get_rank(), dist.get_world_size()
    scores = [noise(3 * TILE + 1), noise(50, 7), noise(4, 5, 6).double(), noise(11), noise(TILE, 2), noise(900)]
    cuts = [0, *(6 * r // size for r in range(1, size)), 6]
    mine = scores[cuts[rank] : cuts[rank + 1]]
    before = sum(s.numel() for s in scores[: cuts[rank]])
    end = before + sum(s.numel() for s in mine)
    for name, (method, outputs) in METHODS.items():
        for output in outputs:
            whole = method(scores, transform="abs", output=output)
            part = method(mine, transform="abs", output=output, group=dist.group.WORLD)
            if output == "indices":
                assert torch.equal(part, whole[(whole >= before) & (whole < end)]), name
            else:
                for a, b in zip(part, whole[cuts[rank] : cuts[rank + 1]], strict=True):
                    assert a.dtype == b.dtype and torch.equal(a, b), (name, output)
    assert sampling.draws_for_nnz(mine, 500, transform="abs", group=dist.group.WORLD) == sampling.draws_for_nnz(
        scores, 500, transform="abs"
    )


def case_a_rank_without_elements() -> None:
    rank, scores = dist.get_rank(), noise(5000)
    for mine in ([scores] if rank == 1 else [], [scores if rank == 1 else scores[:0]]):
        for method, _ in METHODS.values():
            part = method(mine, transform="square", output="bool", group=dist.group.WORLD)
            whole = method(scores, transform="square", output="bool")
            assert [p.tolist() for p in part if p.numel()] == ([whole.tolist()] if rank == 1 else [])


def meshes() -> list[Any]:
    size = dist.get_world_size()
    line = init_device_mesh("cpu", (size,), mesh_dim_names=("all",))
    grid = init_device_mesh("cpu", (2, size // 2), mesh_dim_names=("dp", "tp"))
    return [line, grid]


def layouts() -> list[list[tuple[Any, Any]]]:
    """(mesh, placements) of each of five tensors."""
    line, grid = meshes()
    rows, columns, copies = (line, [Shard(0)]), (line, [Shard(1)]), (line, [Replicate()])
    both, swapped = (grid, [Shard(0), Shard(1)]), (grid, [Shard(1), Shard(0)])
    hybrid, deep = (grid, [Replicate(), Shard(0)]), (grid, [Shard(0), Shard(0)])
    return [
        [columns] * 5,
        [rows, columns, copies, rows, rows],
        [swapped, both, hybrid, deep, hybrid],
    ]


def parameters() -> list[torch.Tensor]:
    return [noise(70, 130), noise(3, 9), noise(130, 61), noise(8, 3, 3, 3).bfloat16(), noise(7, 5).double()]


def case_dtensors() -> None:
    whole, every = parameters(), layouts()
    for layout in every:
        spread = [distribute_tensor(t, mesh, places) for t, (mesh, places) in zip(whole, layout, strict=True)]
        for name, (method, outputs) in METHODS.items():
            for output in outputs if layout is every[-1] else ("weights",):
                expected = method(whole, transform="abs", output=output)
                got = method(spread, transform="abs", output=output)
                if output == "indices":
                    everyone: list[Any] = [None] * dist.get_world_size()
                    dist.all_gather_object(everyone, got.tolist())
                    assert all(part == sorted(part) for part in everyone)
                    assert sorted({i for part in everyone for i in part}) == expected.tolist(), name
                    continue
                for a, b, like in zip(got, expected, spread, strict=True):
                    assert isinstance(a, DTensor) and a.placements == like.placements and a.shape == b.shape
                    assert a.dtype == b.dtype and torch.equal(a.full_tensor(), b), (name, output, layout)
        assert sampling.draws_for_nnz(spread, 500, transform="abs") == sampling.draws_for_nnz(
            whole, 500, transform="abs"
        )


def case_one_dtensor_and_parts_of_a_mesh() -> None:
    _, grid = meshes()
    single = distribute_tensor(noise(70, 130), grid, [Shard(0), Shard(1)])
    assert isinstance(sampling.top_k(single, 100), DTensor)
    mixed = [single, distribute_tensor(noise(40, 9), grid["dp"], [Shard(0)])]
    got = sampling.multinomial(mixed, 4000, seed=1, transform="abs")
    for a, b in zip(
        got, sampling.multinomial([noise(70, 130), noise(40, 9)], 4000, seed=1, transform="abs"), strict=True
    ):
        assert torch.equal(a.full_tensor(), b)


def case_plain_tensors_among_dtensors_are_copies() -> None:
    line, _ = meshes()
    whole = [noise(70, 130), noise(60, 9), noise(5000)]
    mixed = [whole[0], distribute_tensor(whole[1], line, [Shard(1)]), whole[2]]
    for name, (method, _) in METHODS.items():
        got = method(mixed, transform="abs", output="weights", weights=mixed)
        for a, b in zip(got, method(whole, transform="abs", output="weights"), strict=True):
            assert torch.equal(a.full_tensor() if isinstance(a, DTensor) else a, b), name


def case_factors_weights_and_out() -> None:
    whole = [noise(70, 130), noise(33, 9)]
    factors = [noise(130, seed=1).square(), noise(33, 1, seed=2).square()]
    weights = [noise(70, 130, seed=3), noise(33, 9, seed=4)]
    expected = sampling.multinomial(
        whole, 5000, seed=1, transform="square", factor=factors, output="weights", weights=weights, dtype=torch.bfloat16
    )
    line, _ = meshes()
    for place in (Shard(0), Shard(1)):

        def spread(tensors: list[torch.Tensor], place: Any = place) -> list[Any]:
            return [distribute_tensor(t, line, [place]) for t in tensors]

        out = spread([torch.zeros_like(t, dtype=torch.bfloat16) for t in whole])
        full = [f.expand(t.shape).contiguous() for f, t in zip(factors, whole, strict=True)]
        for factor in (factors, spread(full)):
            for o in out:
                o.to_local().zero_()
            got = sampling.multinomial(
                spread(whole), 5000, seed=1, transform="square", factor=factor, output="weights",
                weights=spread(weights), out=out,
            )  # fmt: skip
            for a, b, c in zip(got, expected, out, strict=True):
                assert torch.equal(a.full_tensor(), b) and torch.equal(c.full_tensor(), b)
        scores = spread([t.abs() for t in whole])
        sampling.multinomial(scores, 5000, seed=1, output="weights", out=scores)
        for a, b in zip(
            scores, sampling.multinomial([t.abs() for t in whole], 5000, seed=1, output="weights"), strict=True
        ):
            assert torch.equal(a.full_tensor(), b)


def case_autograd_learns_that_out_was_written() -> None:
    line, _ = meshes()
    x, w = (distribute_tensor(noise(70, 3, seed=i).abs(), line, [Shard(0)]) for i in range(2))
    for given in (x, [x]):
        leaf = x.clone().requires_grad_()
        y = leaf * w
        sampling.multinomial(given, 30, seed=1, out=w if given is x else iter([w]))
        try:
            y.sum().backward()
        except RuntimeError as error:
            assert "modified by an inplace operation" in str(error)
        else:
            raise AssertionError("no error")
    with torch.inference_mode():
        sampling.multinomial(x, 30, seed=1, out=x.clone())


def case_any_iterable_of_dtensors() -> None:
    line, _ = meshes()
    whole = {"a": noise(70, 13), "b": noise(4, 5)}
    spread = {name: distribute_tensor(t, line, [Shard(0)]) for name, t in whole.items()}
    for some in (lambda: spread.values(), lambda: iter(spread.values())):
        got = sampling.top_k(some(), 100, output="weights", weights=some(), factor=some())  # type: ignore
        expected = sampling.top_k(list(whole.values()), 100, output="weights", factor=list(whole.values()))
        for a, b in zip(got, expected, strict=True):
            assert torch.equal(a.full_tensor(), b)


def case_the_default_device_does_not_matter() -> None:
    line, grid = meshes()
    x = noise(70, 130)
    for name, (method, outputs) in METHODS.items():
        expected = method(x, transform="abs", output=outputs[-1])
        bad = x.clone()
        bad[3, 4] = torch.nan
        spread, both, wrong = (
            distribute_tensor(t, mesh, places)
            for t, mesh, places in ((x, line, [Shard(1)]), (x, grid, [Replicate(), Shard(0)]), (bad, line, [Shard(0)]))
        )
        mine = [x] if dist.get_rank() == 1 else []
        with torch.device("meta"):
            parts = [
                method(mine, transform="abs", output=outputs[-1], group=dist.group.WORLD),
                method(spread, transform="abs", output=outputs[-1]),
                method(both, transform="abs", output=outputs[-1]),
            ]
            error = error_of(lambda: method(wrong, transform="abs"))  # noqa: B023
        assert "got nan at flat index 394" in error
        assert len(parts[0]) == len(expected) * len(mine)
        for part in parts[1:]:
            everyone: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(everyone, part.tolist())
            assert sorted({i for ids in everyone for i in ids}) == expected.tolist(), name
    with torch.device("meta"):
        assert sampling.draws_for_nnz(spread, 500, transform="abs") > 500


def case_a_wide_factor_makes_wide_scores() -> None:
    line, _ = meshes()
    x, factor = noise(70, 130).abs() * 2e7, torch.tensor(1e300, dtype=torch.float64)  # races divide, by less than 1
    spread = distribute_tensor(x, line, [Shard(1)])
    for name, (method, _) in METHODS.items():
        expected = method(x.double() * factor, output="bool")
        assert torch.equal(method(spread, factor=factor, output="bool").full_tensor(), expected), name
        mine = [x] if dist.get_rank() == 1 else []
        got = method(mine, factor=[factor] * len(mine), output="bool", group=dist.group.WORLD)
        assert not mine or torch.equal(got[0], expected), name


def case_a_bad_score_raises_the_same_everywhere() -> None:
    line, _ = meshes()
    rank = dist.get_rank()
    for bad in (torch.nan, torch.inf, -1.0):
        whole = [noise(70, 130).abs(), noise(40, 9).abs()]
        whole[1][31, 2] = bad
        spread = [distribute_tensor(t, line, [Shard(1)]) for t in whole]
        for name, (method, _) in METHODS.items():
            if name == "top_k" and bad == -1.0:
                continue
            assert same_error(lambda: method(spread)) == error_of(lambda: method(whole))  # noqa: B023
            mine = [whole[0] + 1, whole[1] if rank == 1 else whole[0]]
            text = same_error(lambda: method(mine, group=dist.group.WORLD))  # noqa: B023
            assert "scores[1] on rank 1 of the group of shape [40, 9] must be finite" in text and "index 281" in text
    zeros = distribute_tensor(torch.zeros(70, 3), line, [Shard(0)])
    assert "positive element, got 210 zeros" in same_error(lambda: sampling.multinomial(zeros, 3, seed=1))
    assert "positive element" in same_error(lambda: sampling.priority(zeros, 3, seed=1))
    assert "can reach" in same_error(lambda: sampling.draws_for_nnz(spread[:1], 9100))


def case_wrong_arguments_hang_nobody() -> None:
    line, _ = meshes()
    rank, world = dist.get_rank(), dist.group.WORLD
    x = noise(50).abs()
    integers = x.long() if rank == 1 else x
    assert "float32" in same_error(lambda: sampling.top_k(integers, 3, group=world))
    kinds = "must be a tensor, or a list of tensors"
    assert kinds in same_error(lambda: sampling.top_k([1] if rank == 1 else [x], 3, group=world))  # type: ignore
    assert "the same on every rank" in same_error(lambda: sampling.top_k(x, 3 + rank, group=world))
    assert "the same on every rank" in same_error(lambda: sampling.multinomial(x, 3, seed=rank, group=world))
    output: Any = "nothing" if rank == 1 else "bool"
    assert "nothing" in same_error(lambda: sampling.top_k(x, 3, output=output, group=world))
    assert "draws must be" in same_error(lambda: sampling.multinomial(x, -rank, seed=0, group=world))
    many = 50 * dist.get_world_size() + 1
    assert f"in [1, {many - 1}], got {many}" in same_error(lambda: sampling.top_k(x, many, group=world))
    assert "at least one element" in same_error(lambda: sampling.top_k(x[:0], 1, group=world))
    weights = x[:3] if rank == 1 else x
    assert "shape" in same_error(lambda: sampling.top_k(x, 3, output="weights", weights=weights, group=world))
    assert "factors must be the same" in same_error(
        lambda: sampling.top_k(x, 3, factor=x if rank == 1 else None, group=world)
    )
    spread = distribute_tensor(noise(40, 9), line, [Shard(0)])
    assert "group must be None" in same_error(lambda: sampling.top_k(spread, 3, group=world))
    assert kinds in same_error(lambda: sampling.top_k([spread, 3], 3))  # type: ignore
    other = distribute_tensor(noise(40, 9), line, [Shard(1)])
    assert "like scores" in same_error(lambda: sampling.top_k(spread, 3, output="weights", weights=other))
    assert "broadcast" in same_error(lambda: sampling.top_k(spread, 3, factor=x))
    assert "TypeError" in same_error(lambda: sampling.top_k(spread, 3, output="weights", weights=3 if rank else spread))
    sums = DTensor.from_local(noise(4, 4), line, [Partial()])
    assert "sharded or replicated" in same_error(lambda: sampling.top_k(sums, 3))
    assert "process group" in same_error(lambda: sampling.top_k(x, 3, group="gloo"))


def case_a_group_of_some_ranks() -> None:
    rank, size = dist.get_rank(), dist.get_world_size()
    few = dist.new_group([0, size - 1])
    if rank in (0, size - 1):
        x = noise(9000)
        half = slice(0, 4000) if rank == 0 else slice(4000, 9000)
        assert torch.equal(sampling.top_k(x[half], 70, group=few), sampling.top_k(x, 70)[half])
    else:
        assert "this rank is in" in error_of(lambda: sampling.top_k(noise(9), 3, group=few))
    dist.barrier()


CASES = {name.removeprefix("case_"): f for name, f in list(globals().items()) if name.startswith("case_")}
# These prove more on four ranks than on two; all others run on two.
FOUR = ("dtensors", "one_dtensor_and_parts_of_a_mesh", "a_rank_without_elements", "a_group_of_some_ranks")
