"""The tangent kernel's operations on the CPU against their definitions in fp64, within bounds from dtype and terms."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from sparseprune import ops
from sparseprune.ops import reference
from sparseprune.ops.reference.convolution import Geometry

from .fresh import integer, same_bytes
from .test_convolutions import patterns
from .test_products import Case, check, normal, poison

OPS = torch.ops.sparseprune
DEFINITION: Any = reference
DTYPES = (torch.float32, torch.float64)
EXAMPLES = (0, 1, 2, 7, 8, 9, 16, 17, 31, 47, 48, 49, 97)
SHAPES = ((1, 1), (1, 300), (37, 1), (5, 3), (67, 131), (13, 1009), (0, 4), (4, 0))


class Gram(NamedTuple):
    """Arguments of ntk_gram but the last."""

    offsets: Tensor
    indices: Tensor
    squares: Tensor | None
    a: Tensor
    b: Tensor
    a2: Tensor | None = None
    b2: Tensor | None = None

    def map(self, f) -> Gram:
        return Gram(*self[:2], *(None if t is None else f(t) for t in self[2:]))

    def check(self, found: Tensor, full: bool) -> None:
        """A block of neurons has 128 terms at most, a neuron more only if it has more inputs."""
        terms = min(len(self.indices), 128) + len(self.a) + len(self.b) + self.b.shape[1]
        exact = DEFINITION.ntk_gram(*self.map(Tensor.double), full)
        assert found.shape == exact.shape and found.dtype == self.a.dtype and found.is_contiguous()
        check(found, exact, DEFINITION.ntk_gram(*self.map(lambda t: t.double().abs()), full), terms)


def gram(
    rng: torch.Generator, shape: tuple[int, int], density: float | Tensor, outputs: int, n: int, dtype: torch.dtype,
    n2: int | None = None, squares: bool = False,
) -> Gram:  # fmt: skip
    pattern = Case(rng, shape, density, dtype).by_row
    draw = lambda *size: normal(rng, *size, dtype=dtype)  # noqa: E731
    second = (None, None) if n2 is None else (draw(shape[1], n2), draw(shape[0], outputs, n2))
    scales = draw(len(pattern[1])).square() if squares else None
    return Gram(*pattern, scales, draw(shape[1], n), draw(shape[0], outputs, n), *second)


def test_a_kernel_by_hand() -> None:
    """Neurons (x0 + x2) b0 and x1 b1: K = (x0 x0' + 4 x2 x2') b0 b0' + x1 x1' b1 b1'."""
    offsets, indices = torch.tensor([0, 2, 3]).int(), torch.tensor([0, 2, 1]).int()
    a, b = torch.tensor([[1.0, 2], [3, 4], [5, 6]]), torch.tensor([[[1.0, -1]], [[2, 3]]])
    expected = torch.tensor([[101 + 36, -(2 + 120) + 72], [-(2 + 120) + 72, 4 + 144 + 144.0]])
    squares = torch.tensor([1.0, 4, 1])
    assert torch.equal(OPS.ntk_gram(offsets, indices, squares, a, b, None, None, False), expected)
    assert torch.equal(OPS.ntk_gram(offsets, indices, squares, a, b, None, None, True)[..., 0, 0], expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("density", [0.0, 0.1, 0.5, 1.0])
def test_gram_agrees_with_fp64(rng, shape, density, dtype) -> None:
    several = integer(rng, 3, 20)
    for outputs, full in ((0, False), (0, True), (1, False), (1, True), (2, True), (several, False)):
        n, n2 = (EXAMPLES[integer(rng, 0, len(EXAMPLES))] for _ in range(2))
        for cross in (False, True):
            drawn = gram(rng, shape, density, outputs, n, dtype, n2 if cross else None, integer(rng, 0, 2) == 1)
            poison()
            drawn.check(OPS.ntk_gram(*drawn, full), full)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "n", "n2"), [((9, 60), 400, None), ((3, 40), 780, None), ((20, 150), 390, 50)])
def test_tiles_of_many_examples(rng, shape, n, n2, dtype) -> None:
    for outputs in (1, 2):
        drawn = gram(rng, shape, 0.3, outputs, n, dtype, n2)
        drawn.check(OPS.ntk_gram(*drawn, False), False)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("full", [False, True])
def test_symmetric_to_the_last_bit_and_positive(rng, full, dtype) -> None:
    drawn = gram(rng, (50, 90), 0.2, 5, 67, dtype, squares=True)
    k = OPS.ntk_gram(*drawn, full)
    assert torch.equal(k, k.permute(1, 0, 3, 2) if full else k.t())
    matrix = k.permute(0, 2, 1, 3).flatten(2).flatten(0, 1) if full else k
    values = torch.linalg.eigvalsh(matrix.double())
    assert values[0] > -100 * torch.finfo(dtype).eps * values[-1]


def test_outputs_on_the_diagonal_are_the_trace(rng) -> None:
    drawn = gram(rng, (40, 60), 0.3, 3, 33, torch.float64, 20)
    trace = OPS.ntk_gram(*drawn, True).diagonal(dim1=2, dim2=3).sum(-1)
    torch.testing.assert_close(OPS.ntk_gram(*drawn, False), trace, rtol=1e-12, atol=1e-12)


def test_one_side_may_stand_for_both(rng) -> None:
    drawn = gram(rng, (20, 30), 0.3, 2, 17, torch.float64)
    whole = OPS.ntk_gram(*drawn, False)
    for second in ({"a2": drawn.a}, {"b2": drawn.b}):
        torch.testing.assert_close(OPS.ntk_gram(*drawn._replace(**second), False), whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("outputs", "full"), [(1, False), (3, False), (3, True)])
@pytest.mark.parametrize(("n", "n2"), [(130, None), (66, 40), (400, None)])
def test_the_same_bits_at_any_number_of_threads(rng, n, n2, outputs, full, dtype, threads) -> None:
    density = torch.linspace(0.9, 0.01, 60)[:, None].expand(60, 300).reshape(-1)
    drawn = gram(rng, (60, 300), density, outputs, n, dtype, n2)
    found = []
    for number in (1, 2, 4):
        torch.set_num_threads(number)
        found.append(OPS.ntk_gram(*drawn, full))
    assert all(same_bytes(found[0], other) for other in found[1:])


def test_examples_do_not_touch_each_other(rng) -> None:
    drawn = gram(rng, (20, 30), 0.3, 2, 21, torch.float32)
    expected = OPS.ntk_gram(*drawn, False)
    drawn.a[:, 20] = torch.inf
    assert torch.equal(OPS.ntk_gram(*drawn, False)[:20, :20], expected[:20, :20])


class Each(NamedTuple):
    """Arguments of spconv_dw_each."""

    offsets: Tensor
    columns: Tensor
    x: Tensor
    grad: Tensor
    geometry: list[int]

    def map(self, f) -> Each:
        return self._replace(x=f(self.x), grad=f(self.grad))

    def check(self, found: Tensor) -> None:
        exact = DEFINITION.spconv_dw_each(*self.map(Tensor.double))
        assert found.shape == exact.shape and found.dtype == self.x.dtype
        magnitude = DEFINITION.spconv_dw_each(*self.map(lambda t: t.double().abs()))
        check(found, exact, magnitude, self.grad.shape[1] * self.grad.shape[2])


def each(
    rng: torch.Generator, geometry: Geometry, size: tuple[int, int], channels: int, filters: int, outputs: int, n: int,
    density: float, dtype: torch.dtype,
) -> Each:  # fmt: skip
    mask = torch.rand(filters, channels, *geometry.kernel, generator=rng) < density
    mask[integer(rng, 0, filters)] = False  # a filter with no entry
    grad = normal(rng, filters, *geometry.output_size(*size), outputs, n, dtype=dtype)
    return Each(*patterns(mask, 1)[0], normal(rng, channels, *size, n, dtype=dtype), grad, geometry.numbers)


def random_each(rng: torch.Generator, dtype: torch.dtype) -> Each:
    draw = lambda low, high: integer(rng, low, high)  # noqa: E731
    geometry = Geometry(
        (draw(1, 5), draw(1, 5)), (draw(1, 4), draw(1, 4)), (draw(0, 4), draw(0, 4), draw(0, 4), draw(0, 4)),
        (draw(1, 3), draw(1, 3)), 1,
    )  # fmt: skip
    size = (draw(1, 12), draw(1, 12))
    if min(geometry.output_size(*size)) < 1:
        return random_each(rng, dtype)
    outputs, n = (0, 1, 2, 4, 5, 10)[draw(0, 6)], (0, 1, 2, 7, 8, 16, 17, 33)[draw(0, 8)]
    return each(rng, geometry, size, draw(1, 7), draw(1, 7), outputs, n, (0.0, 0.1, 0.4, 1.0)[draw(0, 4)], dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradients_of_each_example_agree_with_fp64(rng, dtype) -> None:
    for _ in range(25):
        drawn = random_each(rng, dtype)
        poison()
        drawn.check(OPS.spconv_dw_each(*drawn))


@pytest.mark.parametrize(("kernel", "stride", "size"), [(3, 1, 16), (3, 2, 16), (1, 2, 9), (7, 2, 20), (3, 1, 1)])
def test_gradients_of_layers_of_nets(rng, kernel, stride, size) -> None:
    geometry = Geometry((kernel, kernel), (stride, stride), (kernel // 2,) * 4, (1, 1), 1)
    drawn = each(rng, geometry, (size, size), 9, 11, 10, 35, 0.2, torch.float32)
    found = OPS.spconv_dw_each(*drawn)
    drawn.check(found)
    one = drawn._replace(grad=drawn.grad.sum(3, keepdim=True))
    summed = OPS.spconv_dw(drawn.offsets, drawn.columns, drawn.x, one.grad[..., 0, :], drawn.geometry)
    torch.testing.assert_close(OPS.spconv_dw_each(*one).sum((1, 2)), summed, rtol=1e-3, atol=1e-2)


def test_gradients_have_the_same_bits_at_any_number_of_threads(rng, threads) -> None:
    geometry = Geometry((3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1)
    drawn = each(rng, geometry, (15, 15), 20, 31, 5, 33, 0.3, torch.float32)
    found = []
    for number in (1, 2, 4):
        torch.set_num_threads(number)
        found.append(OPS.spconv_dw_each(*drawn))
    assert all(same_bytes(found[0], other) for other in found[1:])


def test_an_empty_image_gives_zeros(rng) -> None:
    geometry = Geometry((3, 3), (1, 1), (0, 0, 0, 0), (1, 1), 1)
    drawn = each(rng, geometry, (2, 5), 3, 4, 2, 6, 1.0, torch.float32)
    poison()
    found = OPS.spconv_dw_each(*drawn)
    assert drawn.grad.numel() == 0 and found.shape == (81, 2, 6) and not found.any()


def test_strided_operands(rng) -> None:
    spread = lambda t: torch.stack([t, t], -1)[..., 0]  # noqa: E731
    drawn = gram(rng, (20, 30), 0.3, 2, 17, torch.float32, 9, squares=True)
    assert same_bytes(OPS.ntk_gram(*drawn.map(spread), False), OPS.ntk_gram(*drawn, False))
    other = random_each(rng, torch.float32)
    assert same_bytes(OPS.spconv_dw_each(*other.map(spread)), OPS.spconv_dw_each(*other))


def test_opcheck(rng) -> None:
    for outputs, n2, full in ((1, None, False), (2, 4, True)):
        drawn = gram(rng, (6, 9), 0.4, outputs, 5, torch.float32, n2, squares=True)
        torch.library.opcheck(OPS.ntk_gram.default, (*drawn, full))
    torch.library.opcheck(OPS.spconv_dw_each.default, tuple(random_each(rng, torch.float32)))


@pytest.mark.skipif(ops.backends()["ntk_gram"]["cpu"] != "c++", reason="the reference raises torch's own errors")
def test_wrong_arguments_raise(rng) -> None:
    drawn = gram(rng, (6, 9), 0.4, 2, 5, torch.float32, 4, squares=True)
    assert drawn.squares is not None and drawn.a2 is not None and drawn.b2 is not None
    wrong = [
        ({"offsets": drawn.offsets.long()}, "offsets must be a contiguous int32"),
        ({"squares": drawn.squares[1:]}, "squares must be a vector of"),
        ({"squares": drawn.squares.double()}, "squares must be a vector of"),
        ({"a": drawn.a[0]}, "a must be a matrix"),
        ({"b": drawn.b[0]}, r"b must be \[M, O, N\], got 2 dimensions"),
        ({"b": drawn.b[1:]}, r"b must be \[6, 2, 5\], got \[5, 2, 5\]"),
        ({"b": drawn.b.double()}, "b must be .* of the others' dtype"),
        ({"a2": drawn.a2[1:]}, "a2 must have 9 rows, got 8"),
        ({"b2": drawn.b2[:, 1:]}, r"b2 must be \[6, 2, 4\], got \[6, 1, 4\]"),
        ({"b2": None}, r"b2 must be \[6, 2, 4\], got \[6, 2, 5\]"),
    ]
    for change, message in wrong:
        with pytest.raises(RuntimeError, match=f"ntk_gram: {message}"):
            OPS.ntk_gram(*drawn._replace(**change), False)
    with pytest.raises(RuntimeError, match="ntk_gram: a must be float32 or float64"):
        OPS.ntk_gram(*drawn.map(Tensor.bfloat16), False)


@pytest.mark.skipif(ops.backends()["spconv_dw_each"]["cpu"] != "c++", reason="the reference raises torch's own errors")
def test_wrong_arguments_of_gradients_raise(rng) -> None:
    geometry = Geometry((3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1)
    drawn = each(rng, geometry, (5, 5), 4, 4, 2, 6, 0.5, torch.float32)
    wrong = [
        ({"geometry": [*drawn.geometry[:10], 2]}, "groups must be 1, got 2"),
        ({"x": drawn.x[0]}, r"x must be \[C, H, W, N\], got 3 dimensions"),
        ({"x": drawn.x[:, 1:]}, "grad must have 4 along dimension 1, got 5"),
        ({"x": drawn.x[..., 1:]}, "grad must have 5 along dimension 4, got 6"),
        ({"grad": drawn.grad[1:]}, "grad must have 4 along dimension 0, got 3"),
        ({"grad": drawn.grad[0]}, r"grad must be \[M, OH, OW, O, N\]"),
        ({"grad": drawn.grad.double()}, "grad must be .* of x's dtype"),
        ({"x": drawn.x.half(), "grad": drawn.grad.half()}, "x must be float32 or float64"),
    ]
    for change, message in wrong:
        with pytest.raises(RuntimeError, match=f"spconv_dw_each: {message}"):
            OPS.spconv_dw_each(*drawn._replace(**change))


@pytest.mark.skipif(ops.extension_error() is not None, reason="the reference has no instruction sets")
@pytest.mark.parametrize("isa", ["avx2", "plain"])
def test_lower_instruction_sets(isa) -> None:
    """The same tests where the processor has less."""
    if "SPARSEPRUNE_ISA" in os.environ:
        pytest.skip("inside such a run")
    chosen = "(gram_agrees and 0-0.5 and (131 or 300)) or (outputs_on and 0) or gradients_of_each_example"
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__, "-k", chosen],
        env={**os.environ, "SPARSEPRUNE_ISA": isa}, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-3000:]
