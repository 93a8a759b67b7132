"""Calibration: the search for a break-even, the grid, and a file that the dispatcher takes."""

import json
import math

import pytest
import torch

from sparseprune import calibrate, ops
from sparseprune.calibrate import DENSITIES, MARGIN, break_even
from sparseprune.nn.choose import AXES, VARIABLE, choose, parse


def power(even, slope=0.8):
    """A gain that reaches the margin at `even`."""
    return lambda density: MARGIN * (even / density) ** slope


@pytest.mark.parametrize("even", [0.021, 0.05, 0.07, 0.1, 0.3, 0.42, 0.69])
def test_break_even_of_a_power_law_is_exact(even):
    assert break_even(power(even)) == pytest.approx(even)


def test_never_and_always():
    assert break_even(lambda _: 1.09) == 0.0
    assert break_even(lambda _: 1.11) == DENSITIES[-1], "no further than was measured"


def test_few_densities_are_measured():
    asked = []
    break_even(lambda density: asked.append(density) or power(0.3)(density))
    assert len(asked) <= math.ceil(math.log2(len(DENSITIES) + 1))


@pytest.fixture
def measured(monkeypatch):
    """Calibration with gains of its own in place of timings."""
    monkeypatch.setattr(calibrate, "_gain", lambda kind, place, neighbours, repeats, density: power(0.2)(density))


@pytest.mark.parametrize("quick", [True, False])
def test_the_grid_is_whole_and_progress_is_told(measured, quick):
    told = []
    content = calibrate.calibrate(quick=quick, progress=lambda *at: told.append(at))
    grid = calibrate.QUICK if quick else calibrate.FULL
    dtypes = 1 if quick else len(calibrate.DTYPES)
    for kind in AXES:
        assert len(content[kind]) == dtypes * math.prod(map(len, grid[kind]))
    total = sum(len(content[kind]) for kind in AXES)
    assert told == [(i, total) for i in range(total + 1)]
    assert {row["chained"] for row in content["linear"]} == {0.2}
    assert content["margin"] == MARGIN and content["environment"]["cpu"]
    parse(content)


def test_a_saved_table_is_used(measured, tmp_path, monkeypatch):
    path = tmp_path / "table.json"
    calibrate.save(calibrate.calibrate(quick=True), path)
    monkeypatch.setenv(VARIABLE, str(path))
    monkeypatch.setattr(ops, "extension_error", lambda: None)
    layer = {"shape": (512, 512), "batch": 128, "dtype": torch.float32, "device": "cpu"}
    assert choose("linear", density=0.19, **layer) == "csr"
    assert choose("linear", density=0.21, **layer) == "masked"
    assert json.loads(path.read_text())["linear"] == calibrate.calibrate(quick=True)["linear"]
    with pytest.raises(ValueError, match="must hold every combination"):
        calibrate.save({"linear": [], "conv2d": calibrate.calibrate(quick=True)["conv2d"][1:]}, path)


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("linear", {"dtype": "float32", "size": 8, "batch": 3}),
        ("conv2d", {"dtype": "float32", "kernel": 3, "channels": 4, "pixels": 16, "batch": 3}),
    ],
)
@pytest.mark.parametrize("neighbours", ["chained", "alone"])
def test_what_is_timed_runs(kind, place, neighbours):
    assert 0 < calibrate._gain(kind, place, neighbours, 1, 0.5) < math.inf
