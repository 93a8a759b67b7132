"""The public face of the sampler: what all methods promise, how their outputs fit together, and what bad input gets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sparseprune import sampling

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def scores_of(*shape: int, seed: int = 1) -> Tensor:
    """Non-negative scores that float16 holds exactly, a fifth of them 0."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randint(1, 128, shape, generator=g) * 2.0 ** torch.randint(-5, 6, shape, generator=g)
    return x * (torch.rand(shape, generator=g) > 0.2)


def run(method: str, scores: Any, **options: Any) -> Any:
    """Call a method with 300 draws or kept elements."""
    if method == "top_k":
        options = {key: value for key, value in options.items() if key not in ("seed", "stream")}
    else:
        options.setdefault("seed", 5)
    return getattr(sampling, method)(scores, 300, **options)


OUTPUTS = {
    "multinomial": ("m", "counts", "weights", "bool", "indices"),
    "priority": ("m", "weights", "bool", "indices"),
    "without_replacement": ("weights", "bool", "indices"),
    "top_k": ("weights", "bool", "indices"),
}
CASES = [(method, output) for method, outputs in OUTPUTS.items() for output in outputs]
METHODS = list(OUTPUTS)


def flat(result: Any) -> Tensor:
    return torch.cat([r.reshape(-1) for r in result]) if isinstance(result, list) else result.reshape(-1)


def same_bytes(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))


# ---------------------------------------------------------------- promises
@pytest.mark.parametrize("method", METHODS)
def test_zeros_are_never_kept_and_the_number_is_exact(method) -> None:
    for seed in range(20):
        scores = scores_of(6000, seed=seed)
        kept = run(method, scores, seed=seed, output="bool")
        assert not bool(kept[scores == 0].any())
        assert method == "multinomial" or int(kept.sum()) == 300
    counts = sampling.multinomial(scores, 300, seed=1, output="counts")
    assert int(counts.sum()) == 300


@pytest.mark.parametrize(("method", "output"), CASES)
def test_a_list_gives_the_bits_of_its_concatenation(method, output) -> None:
    scores = scores_of(13_001)
    whole = run(method, scores, output=output)
    for sizes in ([13_001], [1, 4095, 4097, 4808], [0, 13, 0, 12_987, 1, 0]):
        parts = run(method, list(scores.split(sizes)), output=output)
        assert same_bytes(flat(parts), flat(whole))


@pytest.mark.parametrize(("method", "output"), CASES)
def test_strides_do_not_matter(method, output) -> None:
    scores = scores_of(60, 90)
    whole = run(method, scores, output=output)
    wide = torch.full((60, 2, 90, 3), torch.nan)
    wide[:, 1, :, 2] = scores
    for view in (scores.t().contiguous().t(), wide[:, 1, :, 2], scores.clone().requires_grad_()):
        result = run(method, view, output=output)
        assert result.shape == whole.shape
        assert not result.requires_grad
        assert same_bytes(result, whole)
    row = run(method, scores[:1].expand(60, 90), output=output)
    assert same_bytes(row, run(method, scores[:1].repeat(60, 1), output=output))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(("method", "output"), [c for c in CASES if c[1] != "weights"])
def test_the_dtype_of_exact_scores_does_not_matter(method, output, dtype) -> None:
    scores = scores_of(9000)
    expected, found = run(method, scores, output=output), run(method, scores.to(dtype), output=output)
    if output == "m":
        assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        found = found.float()
    assert same_bytes(found, expected)


@pytest.mark.parametrize("method", ["multinomial", "priority", "without_replacement"])
def test_seed_and_stream_decide_everything(method) -> None:
    scores = scores_of(9000)
    first = run(method, scores, seed=-1, output="bool")
    assert torch.equal(first, run(method, scores, seed=2**64 - 1, output="bool"))
    assert torch.equal(first, run(method, scores, seed=2**70 - 1, output="bool"))
    torch.manual_seed(123)
    assert torch.equal(first, run(method, scores, seed=-1, stream=0, output="bool"))
    others = [
        run(method, scores, seed=seed, stream=stream, output="bool")
        for seed, stream in [(-1, 1), (-1, 2**32 - 1), (2**63, 0), (2**63 - 1, 0), (0, 0), (2**32, 0)]
    ]
    assert all(not torch.equal(a, b) for i, a in enumerate([first, *others]) for b in others[i:] if a is not b)


@pytest.mark.parametrize("method", METHODS)
def test_the_inputs_and_the_global_generator_are_left_alone(method) -> None:
    scores, weights = scores_of(5000), torch.randn(5000)
    before, state = (scores.clone(), weights.clone()), torch.get_rng_state()
    run(method, scores, output="weights", weights=weights)
    assert torch.equal(scores, before[0])
    assert torch.equal(weights, before[1])
    assert torch.equal(torch.get_rng_state(), state)


# ---------------------------------------------------------------- outputs
@pytest.mark.parametrize("method", METHODS)
def test_outputs_agree_with_one_another(method) -> None:
    shapes = [(50, 70), (0, 3), (), (2, 3, 400)]
    scores = [scores_of(*shape) + (shape == ()) for shape in shapes]
    weights = [torch.randn(shape) for shape in shapes]
    result = {
        output: run(method, scores, output=output, **({"weights": weights} if output == "weights" else {}))
        for output in OUTPUTS[method]
    }
    kept = flat(result["bool"])
    assert [r.shape for r in result["bool"]] == [s.shape for s in scores]
    assert torch.equal(result["indices"], kept.nonzero().view(-1))
    assert torch.equal(flat(result["weights"]) != 0, kept)
    m = flat(result["m"]) if "m" in result else kept.float()
    assert torch.equal(m > 0, kept)
    assert torch.equal(flat(result["weights"]), flat(weights) * m)
    if method == "multinomial":
        assert torch.equal(flat(result["counts"]) > 0, kept)
        assert [r.dtype for r in result["counts"]] == [torch.int32] * 4


def test_m_is_the_count_over_s_p() -> None:
    """p~ differs from p by at most 2^-18 in total variation; for scores near the largest of their tile by 2^-30."""
    scores = torch.rand(9000, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.5
    counts = sampling.multinomial(scores, 5000, seed=3, output="counts")
    m = sampling.multinomial(scores, 5000, seed=3)
    expected = counts * scores.sum() / (5000 * scores)
    assert float((m - expected).abs().max() / expected.max()) < 2**-28
    assert torch.equal(sampling.multinomial(scores.float(), 5000, seed=3).count_nonzero(), counts.count_nonzero())


def test_the_scores_are_the_weights_if_none_are_given() -> None:
    w = torch.randn(5000)
    result = sampling.multinomial(w, 400, seed=1, transform="abs", output="weights")
    assert torch.equal(result, w * sampling.multinomial(w.abs(), 400, seed=1))
    values = result[result != 0]
    assert torch.equal(values.sign(), w[result != 0].sign())
    assert float(values.abs().sum()) == pytest.approx(float(w.abs().sum()), rel=1e-5)  # sum |w| m is sum |w|, always


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("method", ["multinomial", "priority"])
def test_a_dtype_is_one_rounding_of_the_product(method, dtype) -> None:
    scores, w = scores_of(5000), torch.randn(5000)
    m = run(method, scores)
    assert same_bytes(run(method, scores, output="weights", weights=w, dtype=dtype), (m * w).to(dtype))
    assert same_bytes(
        run(method, scores, output="weights", weights=w.double(), dtype=dtype), (m.double() * w.double()).to(dtype)
    )
    if dtype != torch.float16:
        assert same_bytes(run(method, scores, dtype=dtype), m.to(dtype))


@pytest.mark.parametrize(("method", "output"), [c for c in CASES if c[1] != "indices"])
def test_out_is_written_and_returned(method, output) -> None:
    scores = [scores_of(50, 70), scores_of(300)]
    expected = run(method, scores, output=output)
    out = [torch.full_like(e, True if e.dtype == torch.bool else 77) for e in expected]
    result = run(method, scores, output=output, out=out)
    assert all(r.data_ptr() == o.data_ptr() for r, o in zip(result, out, strict=True))
    assert all(same_bytes(o, e) for o, e in zip(out, expected, strict=True))
    single = torch.empty_like(run(method, scores[0], output=output))
    run(method, scores[0], output=output, out=single)
    assert same_bytes(single, run(method, scores[0], output=output))


@pytest.mark.parametrize("method", METHODS)
def test_weights_can_be_sketched_in_place(method) -> None:
    w = torch.randn(9000)
    expected = run(method, w, transform="abs", output="weights")
    run(method, w, transform="abs", output="weights", out=w)
    assert same_bytes(w, expected)


@pytest.mark.parametrize("method", METHODS)
def test_outputs_that_overlap_other_inputs(method) -> None:
    """Swapped tensors, views shifted by a few elements, a factor: as if all inputs had memory of their own."""
    scores, other = scores_of(9000).round(), scores_of(9000, seed=2).round()
    cases = [
        lambda a, b: ([a[:9000], b[:9000]], {"out": [b[:9000], a[:9000]]}),
        lambda a, b: (a[:9000], {"out": a[5:]}),
        lambda a, b: (b[:9000], {"weights": a[:9000], "out": a[5:]}),
        lambda a, b: (b[:9000], {"factor": -a[:9000] if method == "top_k" else a[:9000], "out": b[:9000]}),
        lambda a, b: (b[:9000], {"factor": a[:9000], "weights": b[:9000].clone(), "out": a[:9000]}),
        lambda a, b: (b[:9000].view(100, 90), {"factor": a[:90], "out": a[:9000].view(100, 90)}),
    ]
    for case in cases:
        given, options = case(*(torch.cat([t, torch.ones(5)]) for t in (scores, other)))
        fresh = {name: value for name, value in options.items() if name != "out"}
        expected = run(method, given, output="weights", **fresh)
        assert same_bytes(flat(run(method, given, output="weights", **options)), flat(expected))


@pytest.mark.parametrize(("method", "output"), [c for c in CASES if c[1] != "indices"])
def test_autograd_learns_that_out_was_written(method, output) -> None:
    scores = scores_of(600)
    out = torch.empty_like(run(method, scores, output=output))
    version = out._version
    run(method, scores, output=output, out=out)
    assert out._version > version
    with torch.inference_mode():
        assert same_bytes(run(method, scores, output=output, out=torch.empty_like(out)), out)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(), (1,), (7,), (1, 7), (5, 1), (4, 1, 1), (4, 5, 7), (5, 7)])
@pytest.mark.parametrize("transform", ["given", "abs", "square"])
def test_transform_and_factor_are_the_product(method, shape, transform) -> None:
    w = scores_of(4, 5, 7) - (0 if transform == "given" else 20)
    factor = torch.randint(1, 9, shape).to(torch.bfloat16)
    fused = {"given": w, "abs": w.abs(), "square": w * w}[transform] * factor.float()
    counts = 30
    options: dict[str, Any] = {} if method == "top_k" else {"seed": 2}
    call: Callable[..., Tensor] = getattr(sampling, method)
    found = call(w, counts, transform=transform, factor=factor, output="bool", **options)
    assert torch.equal(found, call(fused.double(), counts, output="bool", **options))


def test_scores_of_one_element() -> None:
    for scores in (torch.tensor(3.0), torch.tensor([3.0]), torch.tensor([[5e-324]], dtype=torch.float64)):
        assert sampling.multinomial(scores, 9, seed=1).view(-1).tolist() == [1.0]
        assert sampling.top_k(scores, 1).view(-1).tolist() == [True]
        assert sampling.priority(scores, 1, seed=1).view(-1).tolist() == [1.0]
        assert sampling.without_replacement(scores, 1, seed=1).view(-1).tolist() == [True]


# ---------------------------------------------------------------- bad input
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


@pytest.mark.parametrize("method", ["multinomial", "priority", "without_replacement"])
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
