"""The public face of the sampler: what all methods promise, and how their outputs fit together."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from sparseprune import sampling

from .sampling_methods import (
    CASES,
    FLOATS,
    METHODS,
    MULTIPLIERS,
    OUTPUTS,
    RANDOM,
    SKETCHES,
    flat,
    run,
    same_bytes,
    scores_of,
)


# ---------------------------------------------------------------- promises
@pytest.mark.parametrize("method", METHODS)
def test_zeros_are_never_kept_and_the_number_is_exact(method) -> None:
    for seed in range(20):
        scores = scores_of(6000, seed=seed)
        kept = run(method, scores, seed=seed, output="bool")
        assert not bool(kept[scores == 0].any())
        if method in ("priority", "without_replacement", "top_k"):
            assert int(kept.sum()) == 300
        if method in ("multinomial", "systematic"):
            assert int(run(method, scores, seed=seed, output="counts").sum()) == 300


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


@pytest.mark.parametrize("method", RANDOM)
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
    if "counts" in result:
        assert torch.equal(flat(result["counts"]) > 0, kept)
        assert [r.dtype for r in result["counts"]] == [torch.int32] * 4
        assert method in SKETCHES or torch.equal(flat(result["counts"]) == 1, kept)


@pytest.mark.parametrize("method", SKETCHES)
def test_m_is_the_count_over_s_p(method) -> None:
    """p~ differs from p by at most 2^-18 in total variation; for scores near the largest of their tile by 2^-30."""
    scores = torch.rand(9000, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.5
    draw = getattr(sampling, method)
    counts, m = draw(scores, 5000, seed=3, output="counts"), draw(scores, 5000, seed=3)
    expected = counts * scores.sum() / (5000 * scores)
    assert float((m - expected).abs().max() / expected.max()) < 2**-28
    assert torch.equal(draw(scores.float(), 5000, seed=3).count_nonzero(), counts.count_nonzero())


def test_m_is_one_over_the_chance() -> None:
    """bernoulli: m v is the same number, 1/c, for all that are kept by chance; priority: tau."""
    scores = torch.rand(9000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for method in ("bernoulli", "priority"):
        m = getattr(sampling, method)(scores, 7000, seed=3)
        shared = (m * scores)[m > 1]
        assert float(shared.max() / shared.min() - 1) < 1e-12
        assert float(scores[m == 1].min()) >= float(shared[0]) * (1 - 1e-12)


@pytest.mark.parametrize("method", MULTIPLIERS)
def test_the_scores_are_the_weights_if_none_are_given(method) -> None:
    w = torch.randn(5000)
    result = run(method, w, transform="abs", output="weights")
    assert torch.equal(result, w * run(method, w.abs()))
    assert torch.equal(result.sign()[result != 0], w.sign()[result != 0])
    if method in ("multinomial", "systematic"):  # sum |w| m is sum |w|, always
        assert float(result.abs().sum()) == pytest.approx(float(w.abs().sum()), rel=1e-5)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("method", MULTIPLIERS)
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
        for method in ("multinomial", "systematic"):
            assert getattr(sampling, method)(scores, 9, seed=1).view(-1).tolist() == [1.0]
        count = sampling.poisson(scores, 9, seed=1, output="counts").view(-1)
        assert float(sampling.poisson(scores, 9, seed=1).view(-1)) == pytest.approx(float(count) / 9, rel=1e-7)
        for method in ("priority", "bernoulli"):
            assert getattr(sampling, method)(scores, 1, seed=1).view(-1).tolist() == [1.0]
        assert sampling.top_k(scores, 1).view(-1).tolist() == [True]
        assert sampling.without_replacement(scores, 1, seed=1).view(-1).tolist() == [True]


@pytest.mark.parametrize("power", [300, -300, 150])
@pytest.mark.parametrize("method", ["priority", "bernoulli", "without_replacement", "multinomial", "systematic"])
def test_a_factor_of_any_fp64_size_changes_nothing(method, power) -> None:
    """A power of two scales every score alike, also where fp32 scores times an fp64 factor leave the range of fp32."""
    scores = torch.rand(5000, generator=torch.Generator().manual_seed(0)) + 0.5
    factor = torch.tensor(2.0**power, dtype=torch.float64)
    run = partial(getattr(sampling, method), scores, 300, seed=1, output="bool")
    assert torch.equal(run(factor=factor), run(factor=torch.ones((), dtype=torch.float64)))
    assert sampling.draws_for_nnz(scores, 300, factor=factor) == sampling.draws_for_nnz(scores, 300)


def test_a_factor_that_repeats_in_the_memory_of_out() -> None:
    buffer = torch.rand(4096, dtype=torch.float64)
    scores, out = torch.rand(2, 4096), buffer.view(torch.float32).view(2, 4096)
    expected = sampling.multinomial(scores, 500, seed=1, factor=buffer.clone())
    assert torch.equal(sampling.multinomial(scores, 500, seed=1, factor=buffer, out=out), expected)
