"""score_tiles in Triton's interpreter against the reference, bit for bit."""

import math

import pytest
import torch

from sparseprune.ops import reference

pytestmark = pytest.mark.interpreter
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
TRANSFORMS = {"given": reference.GIVEN, "abs": reference.ABS, "square": reference.SQUARE}


def check(kernels, same, scores, factors=(), transform=reference.GIVEN):
    got = kernels.score_tiles(list(scores), list(factors), transform)
    expected = reference.score_tiles(list(scores), list(factors), transform)
    same(got, expected)
    return expected


def test_lists(kernels, make, same, sizes):
    check(kernels, same, make(sizes))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_dtypes_and_transforms(kernels, make, same, dtype, transform):
    check(kernels, same, make([4100, 50], (dtype,), signed=transform != "given"), transform=TRANSFORMS[transform])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_factors(kernels, make, same, dtype, transform):
    scores = make([6 * 1000, 7 * 300, 2 * 4096], signed=transform == "abs")
    factors = make([1000, 2100, 1], (dtype,), spread=1.0, signed=transform == "abs", seed=1)
    _, masses, _, bad = check(kernels, same, scores, factors, TRANSFORMS[transform])
    assert int(bad) < 0
    assert bool(masses.any())


def test_the_whole_range_of_fp64(kernels, same):
    exponents = torch.linspace(-1074, 1023, 3 * 4096, dtype=torch.float64).round()
    scores = torch.ldexp(torch.full_like(exponents, 1.0), exponents)
    found, masses, positives, _ = check(kernels, same, [scores])
    assert int(found.min()) < -300
    assert int(found.max()) == 1024
    assert bool((masses > 0).all())
    assert positives.tolist() == [4096] * 3


def test_subnormals(kernels, same):
    scores = [torch.full((10,), 5e-324, dtype=torch.float64), torch.zeros(5000), torch.full((4096,), 1e-45)]
    found, *_ = check(kernels, same, scores)
    assert int(found[0]) == -1073
    check(kernels, same, [torch.arange(3, dtype=torch.int16).view(torch.float16), torch.full((3,), 1e-40).bfloat16()])


def test_zero_tiles(kernels, same):
    check(kernels, same, [torch.zeros(9000), torch.ones(1), torch.zeros(5000)])


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, -math.inf])
@pytest.mark.parametrize("place", [0, 4096, 8990, 9000, 13000])
def test_the_first_bad_score(kernels, same, value, place):
    flat = torch.rand(14000, dtype=torch.float64)
    flat[place] = value
    flat[13500] = math.nan
    *_, bad = check(kernels, same, list(flat.split([8995, 5005])))
    assert int(bad) == place


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_a_square_that_overflows_is_bad(kernels, same):
    scores = torch.ones(5000, dtype=torch.float64)
    scores[4500] = 1e200
    *_, bad = check(kernels, same, [scores], transform=reference.SQUARE)
    assert int(bad) == 4500
