"""Per-layer counts: totals are exact, rules are those of the papers."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseprune import densities

VGG = {"a": (64, 3, 3, 3), "b": (128, 64, 3, 3), "c": (512, 512, 3, 3), "d": (10, 512)}
SHAPES = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=3),
    st.lists(st.integers(1, 12), min_size=2, max_size=4),
    min_size=1,
    max_size=6,
)


@pytest.mark.parametrize("rule", list(densities.RULES))
@settings(max_examples=100, deadline=None)
@given(shapes=SHAPES, density=st.floats(1e-3, 1))
def test_counts_fit_and_sum_to_the_rounded_total(rule, shapes, density):
    counts = densities.RULES[rule](shapes, density)
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    assert list(counts) == list(shapes)
    assert sum(counts.values()) == round(density * sum(sizes.values()))
    assert all(0 <= counts[name] <= sizes[name] for name in sizes)


def test_uniform_is_the_same_density_everywhere():
    counts = densities.uniform(VGG, 0.1)
    assert all(abs(counts[name] - 0.1 * math.prod(VGG[name])) < 1 for name in VGG)


def test_erk_small_layers_become_dense_and_the_density_is_still_the_one_asked_for():
    counts = densities.erk(VGG, 0.1)
    sizes = {name: math.prod(shape) for name, shape in VGG.items()}
    raw = {name: sum(shape) / sizes[name] for name, shape in VGG.items()}
    dense = [name for name in VGG if counts[name] == sizes[name]]
    assert dense == ["a", "d"]  # without redistribution their surplus would be lost
    ratio = {name: counts[name] / (raw[name] * sizes[name]) for name in VGG if name not in dense}
    assert ratio["b"] == pytest.approx(ratio["c"], rel=1e-3)  # one eps for all open layers
    assert sum(counts.values()) == round(0.1 * sum(sizes.values()))


def test_erk_without_dense_layers_by_hand():
    # raw = (4+4)/16 = 1/2 and (2+8)/16 = 5/8; eps (8 + 10) = 0.25 * 32
    assert densities.erk({"x": (4, 4), "y": (2, 8)}, 0.25) == {"x": 4, "y": 4}
    assert densities.erk({"x": (40, 40), "y": (20, 80)}, 0.25) == {"x": 356, "y": 444}


def test_balanced_fills_small_layers_and_spreads_the_surplus():
    # 0.5 * 120 = 60 over three layers; the layer of 10 is dense, 50 are left for two
    assert densities.balanced({"x": (5, 10), "y": (2, 5), "z": (6, 10)}, 0.5) == {"x": 25, "y": 10, "z": 25}


def test_largest_remainder_gives_the_rest_to_the_largest_fractions_ties_first():
    caps = dict.fromkeys("abc", 9)
    assert densities.largest_remainder({"a": 1.2, "b": 2.7, "c": 3.1}, 7, caps) == {"a": 1, "b": 3, "c": 3}
    assert densities.largest_remainder({"a": 0.5, "b": 0.5, "c": 1.0}, 2, caps) == {"a": 1, "b": 0, "c": 1}
    assert densities.largest_remainder({"a": 0.9, "b": 0.2}, 1, {"a": 0, "b": 1}) == {"a": 0, "b": 1}


def test_largest_remainder_refuses_a_total_out_of_reach():
    with pytest.raises(ValueError, match=r"largest_remainder: total must be in \[0, 1\], got 2"):
        densities.largest_remainder({"a": 1.0}, 2, {"a": 1})


@pytest.mark.parametrize("rule", list(densities.RULES))
@pytest.mark.parametrize("density", [0, -0.1, 1.5, math.nan])
def test_densities_outside_are_an_error(rule, density):
    with pytest.raises(ValueError, match=rf"{rule}: density must be in \(0, 1\], got"):
        densities.RULES[rule](VGG, density)
