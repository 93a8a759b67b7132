"""The plan of launches: every element once, O(tensors) launches."""

import importlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseprune.ops import reference

pytestmark = pytest.mark.interpreter
SIZE = st.one_of(st.integers(0, 5), st.integers(4090, 4100), st.integers(0, 20000))


@pytest.fixture(scope="session")
def vector(kernels):
    return importlib.import_module("sparseprune.kernels._vector")


def test_constants_are_those_of_the_reference(vector):
    ours = (vector.TILE, vector.GIVEN, vector.M, vector.COUNTS, vector.WEIGHTS, vector.BOOL)
    assert ours == (
        reference.TILE, reference.GIVEN, reference.M, reference.COUNTS, reference.WEIGHTS, reference.BOOL
    )  # fmt: skip
    elements = importlib.import_module("sparseprune.kernels._elements")
    assert (elements.ABS.value, elements.SQUARE.value) == (reference.ABS, reference.SQUARE)
    philox = importlib.import_module("sparseprune.kernels._philox")
    for name in ("NODE", "DRAW", "POISSON", "PRIORITY", "BERNOULLI", "SUCCESSIVE"):
        assert getattr(philox, name).value == getattr(reference, name)
    race = importlib.import_module("sparseprune.kernels._race")
    for name in ("PLAIN", "PRIORITY_RACE", "SUCCESSIVE_RACE"):
        assert getattr(race, name).value == getattr(reference, name)
    assert importlib.import_module("sparseprune.kernels.mass_histogram").BINS.value == reference.BINS


@settings(max_examples=200, deadline=None)
@given(sizes=st.lists(SIZE, min_size=1, max_size=12))
def test_every_element_once(vector, sizes):
    runs, pieces, cut = vector.plan(sizes)
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    places = []  # (first logical element, one past the last)
    for tensor, skip, first, tiles in runs:
        begin = starts[tensor] + skip
        assert begin == first * vector.TILE
        assert tiles > 0
        places.append((begin, min(begin + tiles * vector.TILE, starts[tensor] + sizes[tensor])))
    for piece in pieces:
        at = starts[piece.tensor] + piece.begin
        for k in range(piece.begin, piece.end, 997):
            row, lane = divmod(piece.at + k - piece.begin, vector.TILE)
            assert cut[row] * vector.TILE + lane == starts[piece.tensor] + k
        places.append((at, at + piece.end - piece.begin))
    places.sort()
    assert [low for low, _ in places] == [0, *[high for _, high in places]][: len(places)]
    assert (places[-1][1] if places else 0) == sum(sizes)
    assert cut == sorted(set(cut))
    assert len(runs) <= len(sizes)
    assert len(pieces) <= 2 * len(sizes)


def test_words_keep_32_bits(kernels):
    philox = importlib.import_module("sparseprune.kernels._philox")
    for number in (0, 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, -1, -(1 << 63)):
        (word,) = philox.words(number)
        assert -(1 << 31) <= word < 1 << 31
        assert (word - number) % (1 << 32) == 0
