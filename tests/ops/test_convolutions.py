"""The sparse convolutions of C++ against their definitions in fp64, on random geometries; each run draws new ones."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from sparseprune import ops
from sparseprune.ops import reference
from sparseprune.ops.reference.convolution import Geometry

from .fresh import integer, same_bytes

OPS = torch.ops.sparseprune
pytestmark = pytest.mark.skipif(
    ops.backends()["spconv"]["cpu"] != "c++", reason="the reference itself serves where the extension is missing"
)


class Nchw:
    """The operations on images [B, C, H, W], as if they were those on [C, H, W, B]."""

    spconv = staticmethod(lambda *a: _last(OPS.spconv_nchw(*a[:3], _first(a[3]), *a[4:])))
    spconv_dx = staticmethod(lambda *a: _last(OPS.spconv_nchw_dx(*a[:4], _first(a[4]), *a[5:])))
    spconv_dw = staticmethod(lambda *a: OPS.spconv_nchw_dw(*a[:2], _first(a[2]), _first(a[3]), *a[4:]))

    @staticmethod
    def spconv_backward(*a):
        dx, dw = OPS.spconv_nchw_backward(*a[:4], _first(a[4]), _first(a[5]), *a[6:])
        return _last(dx), dw


def _first(x: Tensor) -> Tensor:
    return x.permute(3, 0, 1, 2)


def _last(x: Tensor) -> Tensor:
    return x.permute(1, 2, 3, 0)


MEMORY = pytest.mark.parametrize("memory", [OPS, Nchw], ids=["chwn", "nchw"])


class Case(NamedTuple):
    """A convolution: its pattern in both orders, and all tensors."""

    geometry: list[int]
    by_output: tuple[Tensor, Tensor]
    by_input: tuple[Tensor, Tensor, Tensor]
    values: Tensor
    x: Tensor
    bias: Tensor
    grad: Tensor

    def to(self, dtype: torch.dtype) -> Case:
        return self._replace(**{name: getattr(self, name).to(dtype) for name in ("values", "x", "bias", "grad")})

    def absolute(self) -> Case:
        return self._replace(**{name: getattr(self, name).abs() for name in ("values", "x", "bias", "grad")})

    def results(self, ops) -> list[Tensor]:
        """y, dx, dw, and both gradients at once."""
        geometry, size = self.geometry, list(self.x.shape[1:3])
        return [
            ops.spconv(self.values, *self.by_output, self.x, self.bias, geometry),
            ops.spconv_dx(self.values, *self.by_input, self.grad, size, geometry),
            ops.spconv_dw(*self.by_output, self.x, self.grad, geometry),
            *ops.spconv_backward(self.values, *self.by_input, self.x, self.grad, geometry),
        ]


def patterns(mask: Tensor, groups: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    outputs, channels, *kernel = mask.shape
    flat = mask.reshape(outputs, -1)
    row, column = flat.nonzero(as_tuple=True)
    offsets = torch.zeros(outputs + 1, dtype=torch.int32)
    offsets[1:] = flat.sum(1).cumsum(0)
    taps = kernel[0] * kernel[1]
    place = row // max(outputs // groups, 1) * channels * taps + column  # absolute input channel and tap
    order = place.argsort(stable=True)
    column_offsets = torch.zeros(channels * groups * taps + 1, dtype=torch.int32)
    column_offsets[1:] = torch.bincount(place, minlength=channels * groups * taps).cumsum(0)
    return (offsets, column.int()), (column_offsets, row[order].int(), order.int())


def case(
    rng: torch.Generator, geometry: Geometry, size: tuple[int, int], channels: int, outputs: int, batch: int,
    density: float,
) -> Case:  # fmt: skip
    """channels and outputs: of one group."""
    groups = geometry.groups
    mask = torch.rand(outputs * groups, channels, *geometry.kernel, generator=rng) < density
    mask &= torch.rand(outputs * groups, 1, 1, 1, generator=rng) < 0.9  # some empty rows
    by_output, by_input = patterns(mask, groups)
    normal = lambda *shape: torch.randn(*shape, generator=rng, dtype=torch.float64)  # noqa: E731
    return Case(
        geometry.numbers, by_output, by_input, normal(int(mask.sum())), normal(channels * groups, *size, batch),
        normal(outputs * groups), normal(outputs * groups, *geometry.output_size(*size), batch),
    )  # fmt: skip


def random_case(rng: torch.Generator) -> Case:
    """Any geometry whose output is not empty: the definition's own convolution knows no other."""
    draw = lambda low, high: integer(rng, low, high)  # noqa: E731
    geometry = Geometry(
        (draw(1, 5), draw(1, 5)), (draw(1, 4), draw(1, 4)), (draw(0, 4), draw(0, 4), draw(0, 4), draw(0, 4)),
        (draw(1, 3), draw(1, 3)), draw(1, 4),
    )  # fmt: skip
    size = (draw(1, 12), draw(1, 12))
    if min(geometry.output_size(*size)) < 1:
        return random_case(rng)
    batch = (0, 1, 2, 3, 7, 16, 17, 31, 64, 67, 128, 130)[draw(0, 12)]
    return case(rng, geometry, size, draw(1, 7), draw(1, 7), batch, (0.0, 0.1, 0.4, 1.0)[draw(0, 4)])


def close(case: Case, dtype: torch.dtype, results: list[Tensor]) -> None:
    """Every element within (terms + 3) roundings of the sum of its products' magnitudes."""
    case = case.to(dtype).to(torch.float64)
    unit = torch.finfo(torch.float32 if dtype is torch.bfloat16 else dtype).eps
    kernel = case.geometry[0] * case.geometry[1]
    pixels = case.grad[0].numel()
    all_terms = (len(case.x) * kernel, len(case.grad) * kernel, pixels, len(case.grad) * kernel, pixels)
    exact, magnitude = case.results(reference), case.absolute().results(reference)
    for y, wanted, size, terms in zip(results, exact, magnitude, all_terms, strict=True):
        assert y.dtype is dtype and y.shape == wanted.shape
        bound = (terms + 3) * unit * size
        if dtype is torch.bfloat16:
            bound += torch.finfo(dtype).eps * wanted.abs()
        assert ((y - wanted).abs() <= bound).all()


@MEMORY
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_definition(rng: torch.Generator, dtype: torch.dtype, memory) -> None:
    for _ in range(20):
        drawn = random_case(rng)
        close(drawn, dtype, drawn.to(dtype).results(memory))


@MEMORY
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "channels", "outputs", "size", "batch"),
    [
        (3, 1, 1, 40, 24, 2, 64),
        (3, 1, 1, 20, 12, 9, 64),
        (3, 2, 1, 20, 12, 16, 80),
        (1, 2, 0, 30, 20, 8, 64),
        (3, 1, 1, 300, 10, 8, 64),
        (3, 1, 1, 3, 6, 32, 200),
        (3, 1, 1, 4, 5, 40, 1),
        (7, 2, 3, 3, 8, 30, 33),
    ],
)
def test_layers_of_nets(
    rng: torch.Generator, kernel: int, stride: int, padding: int, channels: int, outputs: int, size: int, batch: int,
    memory,
) -> None:  # fmt: skip
    geometry = Geometry((kernel, kernel), (stride, stride), (padding,) * 4, (1, 1), 1)
    drawn = case(rng, geometry, (size, size), channels, outputs, batch, 0.1)
    for dtype in (torch.float32, torch.bfloat16):
        close(drawn, dtype, drawn.to(dtype).results(memory))


@MEMORY
def test_threads(rng: torch.Generator, threads: None, memory) -> None:
    geometry = Geometry((3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1)
    for size, batch in ((32, 64), (4, 64), (7, 33)):
        drawn = case(rng, geometry, (size, size), 48, 33, batch, 0.3).to(torch.float32)
        torch.set_num_threads(1)
        alone = drawn.results(memory)
        for count in (2, 3, 4):
            torch.set_num_threads(count)
            assert all(same_bytes(a, b) for a, b in zip(alone, drawn.results(memory), strict=True))


@MEMORY
def test_empty_images(rng: torch.Generator, memory) -> None:
    valid = Geometry((2, 3), (1, 2), (0, 0, 0, 0), (1, 1), 2)
    for size in ((1, 5), (4, 1)):  # one row or column less than the kernel
        drawn = case(rng, valid, size, 3, 2, 5, 0.5).to(torch.float32)
        y, dx, dw, both_dx, both_dw = drawn.results(memory)
        assert y.shape == drawn.grad.shape and y.numel() == 0
        assert all(not t.any() for t in (dx, dw, both_dx, both_dw))
        assert dx.shape == both_dx.shape == drawn.x.shape and dw.shape == both_dw.shape == drawn.values.shape
    no_channels = case(rng, valid, (4, 5), 0, 2, 5, 0.5).to(torch.float32)
    y = memory.spconv(no_channels.values, *no_channels.by_output, no_channels.x, no_channels.bias, no_channels.geometry)
    assert torch.equal(y, no_channels.bias[:, None, None, None].expand_as(y))


@MEMORY
def test_wrong_arguments_raise(rng: torch.Generator, memory) -> None:
    geometry = Geometry((3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1)
    drawn = case(rng, geometry, (5, 5), 3, 4, 6, 0.5).to(torch.float32)
    values, x, bias, numbers = drawn.values, drawn.x, drawn.bias, drawn.geometry
    for wrong in (
        (values[1:], *drawn.by_output, x, None, numbers),
        (values, drawn.by_output[0].long(), drawn.by_output[1], x, None, numbers),
        (values, *drawn.by_output, x.double(), None, numbers),
        (values, *drawn.by_output, x[0], None, numbers),
        (values, *drawn.by_output, x, bias[1:], numbers),
        (values, *drawn.by_output, x, None, numbers[1:]),
        (values, *drawn.by_output, x, None, [3, 3, 0, *numbers[3:]]),
        (values, *drawn.by_output, x, None, [*numbers[:10], 2]),
        (values.half(), *drawn.by_output, x.half(), None, numbers),
    ):
        with pytest.raises(RuntimeError, match=r"spconv|kernel|geometry|permute"):
            memory.spconv(*wrong)
    with pytest.raises(RuntimeError, match=r"spconv|kernel|geometry"):
        memory.spconv_dx(values, *drawn.by_input, drawn.grad, [6, 5], numbers)
    with pytest.raises(RuntimeError, match=r"spconv|kernel|geometry"):
        memory.spconv_dw(*drawn.by_output, x[:, :4].contiguous(), drawn.grad, numbers)
    with pytest.raises(RuntimeError, match=r"spconv|kernel|geometry"):
        memory.spconv_backward(values, *drawn.by_input, x[:2], drawn.grad, numbers)


@MEMORY
def test_strided_inputs(rng: torch.Generator, memory) -> None:
    drawn = random_case(rng).to(torch.float32)
    spread = lambda t: torch.stack([t, t], -1)[..., 0]  # noqa: E731
    strided = drawn._replace(**{name: spread(getattr(drawn, name)) for name in ("values", "x", "bias", "grad")})
    assert all(same_bytes(a, b) for a, b in zip(drawn.results(memory), strided.results(memory), strict=True))


def test_opcheck(rng: torch.Generator) -> None:
    drawn = random_case(rng).to(torch.float32)
    numbers = drawn.geometry
    torch.library.opcheck(OPS.spconv.default, (drawn.values, *drawn.by_output, drawn.x, drawn.bias, numbers))
    size = list(drawn.x.shape[1:3])
    torch.library.opcheck(OPS.spconv_dx.default, (drawn.values, *drawn.by_input, drawn.grad, size, numbers))
    torch.library.opcheck(OPS.spconv_dw.default, (*drawn.by_output, drawn.x, drawn.grad, numbers))
    torch.library.opcheck(OPS.spconv_backward.default, (drawn.values, *drawn.by_input, drawn.x, drawn.grad, numbers))


_ON_EVERY_SET = [*(f"test_definition[0-dtype{i}" for i in range(3)), "test_layers_of_nets[0-3-1-1-300-10-8-64"]


@pytest.mark.parametrize("isa", ["avx2", "plain"])
def test_instruction_sets(isa: str) -> None:
    """The set is chosen once a process."""
    names = [f"{test}-{memory}]" for memory in ("chwn", "nchw") for test in _ON_EVERY_SET]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *(f"{__file__}::{name}" for name in names)],
        env={**os.environ, "SPARSEPRUNE_ISA": isa}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
