"""What bad input to the sampler gets: an error that names it, the same from every method, and nothing written."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sparseprune import sampling

from .sampling_methods import METHODS, RANDOM, run

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("method", "value"),
    [
        (m, v) for m in METHODS for v in (NAN, INF, -INF, -1.5) if m != "top_k" or v != -1.5
    ],  # -1.5 has its place in order
)
@pytest.mark.parametrize("listed", [False, True])
def test_a_bad_score_is_named_and_nothing_is_written(method, value, listed) -> None:
    scores = [torch.ones(4, 1100), torch.ones(30, 200)]
    scores[1][7, 3] = value
    scores[1][9, 9] = NAN  # only the first is named
    given = scores if listed else scores[1]
    out = [torch.full(s.shape, True) for s in scores]
    must = "finite" if method == "top_k" else "finite and non-negative"
    name = "scores[1]" if listed else "scores"
    with pytest.raises(ValueError) as error:
        run(method, given, output="bool", out=out if listed else out[1])
    text = f"{method}: {name} of shape [30, 200] must be {must}, got {value} at flat index 1403"
    assert str(error.value) == text
    assert all(bool(o.all()) for o in out)
    with pytest.raises(ValueError, match="flat index 1403"):  # the same place from a strided view, and in fp64
        run(method, [s.double().t().contiguous().t() for s in scores] if listed else scores[1].double(), output="bool")


@pytest.mark.parametrize("method", RANDOM)
def test_all_zero_scores(method) -> None:
    out = torch.full((20, 30), True)
    with pytest.raises(ValueError, match=f"^{method}: scores must have a positive element, got 600 zeros$"):
        run(method, -torch.zeros(20, 30), output="bool", out=out)
    assert bool(out.all())


def test_a_product_that_is_not_finite_is_named() -> None:
    text = "multinomial: scores of shape [2] must be finite and non-negative, got nan at flat index 1"
    with pytest.raises(ValueError) as error:
        sampling.multinomial(torch.tensor([1.0, INF]), 5, seed=0, factor=torch.tensor([1.0, 0.0]))
    assert str(error.value) == text
    with pytest.raises(ValueError, match="got inf at flat index 0"):
        sampling.top_k(torch.tensor([1e300, 1.0], dtype=torch.float64), 1, transform="square")


TEN = torch.ones(2, 5)
BAD: list[tuple[dict[str, Any], str]] = [
    ({"scores": []}, "scores must be a tensor, or a list of tensors, with at least one element"),
    ({"scores": 3.0}, "scores must be a tensor, or a list of tensors, with at least one element"),
    ({"scores": torch.ones(0, 4)}, "scores must be a tensor, or a list of tensors, with at least one element"),
    ({"scores": [TEN, 1.0]}, "scores must be a tensor, or a list of tensors, with at least one element"),
    ({"scores": TEN.int()}, "scores must be float16, bfloat16, float32 or float64, got torch.int32"),
    ({"scores": [TEN, TEN.bool()]}, "scores[1] must be float16, bfloat16, float32 or float64, got torch.bool"),
    ({"scores": [TEN, TEN.to("meta")]}, "scores[1] must be on cpu like scores[0], got meta"),
    ({"scores": TEN.to("meta")}, "scores must be dense on cpu or cuda, got torch.strided on meta"),
    ({"scores": TEN.to_sparse()}, "scores must be dense on cpu or cuda, got torch.sparse_coo on cpu"),
    ({"factor": 2.0}, "factor must be a tensor, or a list of tensors, with at least one element, got float"),
    ({"weights": [2.0]}, "weights must be a tensor, or a list of tensors, with at least one element, got float"),
    ({"out": "x"}, "out must be a tensor, or a list of tensors, with at least one element, got str"),
    ({"transform": "log"}, "transform must be one of 'given', 'abs', 'square', got 'log'"),
    ({"output": "mask"}, "output must be one of "),
    ({"factor": torch.ones(4)}, "factor must broadcast to [2, 5] like scores, got [4]"),
    ({"factor": torch.ones(3, 2, 5)}, "factor must broadcast to [2, 5] like scores, got [3, 2, 5]"),
    ({"factor": torch.ones(5, dtype=torch.int64)}, "factor must be floating on cpu, got torch.int64 on cpu"),
    ({"factor": torch.ones(5, device="meta")}, "factor must be floating on cpu, got torch.float32 on meta"),
    ({"scores": [TEN, TEN], "factor": [TEN]}, "factor must have 2 tensors like scores, got 1"),
    ({"weights": torch.ones(10)}, "weights must have shape [2, 5] like scores on cpu, got [10] on cpu"),
    ({"weights": TEN.to("meta")}, "weights must have shape [2, 5] like scores on cpu, got [2, 5] on meta"),
    ({"weights": TEN.int()}, "weights must be float16, bfloat16, float32 or float64, got torch.int32"),
    ({"out": torch.ones(5, 2, dtype=torch.bool)}, "out must have shape [2, 5] like scores on cpu, got [5, 2] on cpu"),
    ({"out": TEN.int()}, "out must be contiguous torch.bool, got torch.int32 with strides (5, 1)"),
    ({"out": torch.ones(5, 2).bool().t()}, "out must be contiguous torch.bool, got torch.bool with strides (1, 2)"),
    ({"scores": [TEN, TEN], "out": [TEN.bool()]}, "out must have 2 tensors like scores, got 1"),
    ({"output": "indices", "out": TEN.bool()}, "out must be None for output 'indices', got a tensor"),
]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("options", "text"), BAD, ids=[str(i) for i in range(len(BAD))])
def test_bad_arguments(method, options, text) -> None:
    options = {"output": "bool", **options}
    scores = options.pop("scores", TEN)
    seed = {} if method == "top_k" else {"seed": 0}
    with pytest.raises(ValueError) as error:
        getattr(sampling, method)(scores, 3, **options, **seed)
    assert str(error.value).startswith(f"{method}: {text}")


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: sampling.multinomial(TEN, 0, seed=0),
            "multinomial: draws must be an integer in [1, 2147483647], got 0",
        ),
        (
            lambda: sampling.multinomial(TEN, 2**31, seed=0),
            "multinomial: draws must be an integer in [1, 2147483647], got ",
        ),
        (lambda: sampling.multinomial(TEN, 2.0, seed=0), "multinomial: draws must be an integer"),
        (lambda: sampling.multinomial(TEN, True, seed=0), "multinomial: draws must be an integer"),
        (
            lambda: sampling.systematic(TEN, 2**31, seed=0),
            "systematic: draws must be an integer in [1, 2147483647], got ",
        ),
        (
            lambda: sampling.poisson(TEN, 2**30 + 1, seed=0),
            "poisson: draws must be an integer in [1, 1073741824], got ",
        ),
        (lambda: sampling.bernoulli(TEN, 11, seed=0), "bernoulli: k must be an integer in [1, 10], got 11"),
        (lambda: sampling.bernoulli(TEN, 0, seed=0), "bernoulli: k must be an integer in [1, 10], got 0"),
        (lambda: sampling.bernoulli(TEN, 5, seed=None), "bernoulli: seed must be an integer, got None"),
        (lambda: sampling.systematic(TEN, 5, seed=0, stream=-1), "systematic: stream must be an integer in [0, "),
        (lambda: sampling.multinomial(TEN, 5, seed=0.5), "multinomial: seed must be an integer, got 0.5"),
        (lambda: sampling.priority(TEN, 5, seed="a"), "priority: seed must be an integer, got 'a'"),
        (lambda: sampling.multinomial(TEN, 5, seed=0, stream=2**32), "multinomial: stream must be an integer in [0, "),
        (lambda: sampling.priority(TEN, 5, seed=0, stream=-1), "priority: stream must be an integer in [0, "),
        (lambda: sampling.top_k(TEN, 11), "top_k: k must be an integer in [1, 10], got 11"),
        (lambda: sampling.top_k(TEN, 0), "top_k: k must be an integer in [1, 10], got 0"),
        (lambda: sampling.priority(TEN, 11, seed=0), "priority: k must be an integer in [1, 10], got 11"),
        (
            lambda: sampling.without_replacement(TEN, 0, seed=0),
            "without_replacement: k must be an integer in [1, 10], got",
        ),
        (lambda: sampling.draws_for_nnz(TEN, 11), "draws_for_nnz: nnz must be an integer in [1, 10], got 11"),
        (
            lambda: sampling.draws_for_nnz(torch.tensor([1.0, -2.0]), 1),
            "draws_for_nnz: scores of shape [2] must be finite and non-negative, got -2.0 at flat index 1",
        ),
        (
            lambda: sampling.draws_for_nnz(0 * TEN, 1),
            "draws_for_nnz: scores must have a positive element, got 10 zeros",
        ),
        (
            lambda: sampling.multinomial(TEN, 5, seed=0, dtype=torch.float16),
            "multinomial: dtype must not be float16 for output 'm': 1/(s p) overflows it",
        ),
        (
            lambda: sampling.priority(TEN, 5, seed=0, out=TEN.bool()),
            "priority: out must be contiguous torch.float32, got torch.bool with strides (5, 1)",
        ),
        (
            lambda: sampling.systematic(TEN, 5, seed=0, output="weights", out=TEN.int()),
            "systematic: out must be contiguous torch.float32, got torch.int32 with strides (5, 1)",
        ),
        (
            lambda: sampling.priority(TEN, 5, seed=0, out=TEN.half()),
            "priority: dtype must not be float16 for output 'm': 1/(s p) overflows it",
        ),
        (
            lambda: sampling.multinomial(TEN, 5, seed=0, output="counts", dtype=torch.int64),
            "multinomial: dtype must be None or floating, for 'm' and 'weights' only, got torch.int64",
        ),
        (
            lambda: sampling.multinomial(TEN, 5, seed=0, dtype=torch.float64, out=TEN.clone()),
            "multinomial: out must be contiguous torch.float64, got torch.float32 with strides (5, 1)",
        ),
    ],
    ids=lambda value: value[:50] if isinstance(value, str) else "",
)
def test_bad_numbers(call, text) -> None:
    with pytest.raises(ValueError) as error:
        call()
    assert str(error.value).startswith(text)
