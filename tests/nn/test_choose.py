"""The dispatcher: csr only where the table says that it wins, and the table itself."""

import json
import math

import pytest
import torch

from sparseprune import calibrate, ops
from sparseprune.nn import choose as module
from sparseprune.nn.choose import AXES, NEIGHBOURS, SHIPPED, VARIABLE, break_even, choose, parse, table

LINEAR = {"shape": (1024, 1024), "batch": 128, "dtype": torch.float32, "device": "cpu"}
CONV = {**LINEAR, "shape": (64, 64, 3, 3), "size": (16, 16)}
NEEDS_EXTENSION = pytest.mark.skipif(ops.extension_error() is not None, reason="csr never wins without it")


def linear_rows(values, dtype="float32"):
    """{(size, batch): density} as rows; chained wins up to there, alone up to half of it."""
    return [
        {"dtype": dtype, "size": size, "batch": batch, "chained": value, "alone": value / 2}
        for (size, batch), value in values.items()
    ]


@pytest.fixture
def use(tmp_path, monkeypatch):
    """Have a table with these linear rows in use, as a user's."""

    def write(linear, conv2d=()):
        path = tmp_path / "mine.json"
        path.write_text(json.dumps({"linear": linear, "conv2d": list(conv2d)}))
        monkeypatch.setenv(VARIABLE, str(path))
        return path

    monkeypatch.setattr(ops, "extension_error", lambda: None)
    return write


SQUARE = linear_rows({(16, 1): 0.1, (16, 256): 0.2, (1024, 1): 0.3, (1024, 256): 0.6})


def at(size, batch, **more):
    return break_even("linear", **{**LINEAR, "shape": (size, size), "batch": batch, **more})


def test_measured_places_give_what_was_measured(use):
    use(SQUARE)
    for row in SQUARE:
        assert at(row["size"], row["batch"]) == pytest.approx(row["chained"])
        assert at(row["size"], row["batch"], alone=True) == pytest.approx(row["alone"])


def test_between_them_it_is_linear_in_the_logarithms(use):
    use(SQUARE)
    assert at(128, 1) == pytest.approx(0.2)  # 128 = sqrt(16 * 1024)
    assert at(128, 16) == pytest.approx((0.1 + 0.2 + 0.3 + 0.6) / 4)
    assert at(1024, 4) == pytest.approx(0.3 + 0.3 * math.log(4) / math.log(256))
    oblong = break_even("linear", **{**LINEAR, "shape": (32, 512), "batch": 1})
    assert oblong == pytest.approx(at(128, 1)), "the geometric mean of both sides"


def test_above_the_largest_it_stays_and_below_the_smallest_nothing_was_measured(use):
    use(SQUARE)
    assert at(8192, 100_000) == pytest.approx(0.6)
    assert at(15, 256) == 0 and at(16, 0) == 0


def test_choice_falls_once_with_density(use):
    use(SQUARE)
    densities = [i / 1000 for i in range(1, 1001)]
    choices = [choose("linear", density=density, **LINEAR) for density in densities]
    assert set(choices) == {"csr", "masked"} and choices == sorted(choices)
    even = break_even("linear", **LINEAR)
    assert choose("linear", density=even, **LINEAR) == "csr"
    assert choose("linear", density=math.nextafter(even, 1), **LINEAR) == "masked"
    assert choose("linear", density=0.0, **LINEAR) == "masked", "an empty layer has nothing to gain"


@pytest.mark.parametrize(
    "unknown",
    [{"device": "cuda"}, {"device": torch.device("meta")}, {"dtype": torch.float64}, {"dtype": torch.float16}],
    ids=str,
)
def test_what_was_not_measured_stays_masked(use, unknown):
    use(SQUARE)
    assert choose("linear", density=1e-6, **LINEAR) == "csr"
    assert choose("linear", density=1e-6, **{**LINEAR, **unknown}) == "masked"


def test_without_the_extension_all_stays_masked(use, monkeypatch):
    use(SQUARE)
    monkeypatch.setattr(ops, "extension_error", lambda: "no compiler")
    assert choose("linear", density=1e-6, **LINEAR) == "masked"


CONV_ROWS = [
    {"dtype": "float32", "kernel": k, "channels": c, "pixels": p, "batch": b, "chained": 0.001 * c * k, "alone": 0.0}
    for k in (1, 3)
    for c in (16, 64)
    for p in (16, 256)
    for b in (1, 64)
]


def test_convolutions_have_their_own_axes(use):
    use([], CONV_ROWS)
    assert break_even("conv2d", **CONV) == pytest.approx(0.192)
    assert break_even("conv2d", **CONV, alone=True) == 0
    assert break_even("conv2d", **{**CONV, "shape": (64, 64, 1, 9)}) == pytest.approx(0.192), "nine taps"
    assert break_even("conv2d", **CONV, stride=(4, 4)) == pytest.approx(0.192), "16 pixels of output"
    assert break_even("conv2d", **CONV, stride=(5, 5)) > 0 == break_even("conv2d", **CONV, stride=(6, 6))
    assert break_even("conv2d", **CONV, groups=2) == break_even("conv2d", **CONV, dilation=(1, 2)) == 0
    assert break_even("linear", **LINEAR) == 0, "no rows of its kind"


def test_a_table_measured_again_is_read_again(use):
    path = use(SQUARE)
    assert at(1024, 256) == pytest.approx(0.6)
    path.write_text(json.dumps({"linear": linear_rows({(1024, 256): 0.25}), "conv2d": []}))
    assert at(1024, 256) == 0.25 == at(4096, 512)


@pytest.mark.parametrize(
    "content",
    [
        "not json",
        "[]",
        '{"linear": []}',
        json.dumps({"linear": SQUARE[:3], "conv2d": []}),
        json.dumps({"linear": linear_rows({(16, 1): 1.5}), "conv2d": []}),
        json.dumps({"linear": linear_rows({(16, 0): 0.5}), "conv2d": []}),
        json.dumps({"linear": [{"dtype": "float32", "size": 16}], "conv2d": []}),
    ],
)
def test_a_file_that_is_no_table_is_one_clear_error(use, content):
    path = use(SQUARE)
    path.write_text(content)
    with pytest.raises(ValueError, match=f"{VARIABLE} must name a table.*mine.json"):
        choose("linear", density=0.1, **LINEAR)


def test_a_missing_file_is_one_clear_error(use, monkeypatch):
    monkeypatch.setenv(VARIABLE, "nowhere.json")
    with pytest.raises(ValueError, match=r"must name a table.*nowhere.json.*FileNotFoundError"):
        choose("linear", density=0.1, **LINEAR)


@pytest.mark.parametrize(
    ("kind", "changes", "reason"),
    [
        ("conv3d", {}, "kind must be 'linear' or 'conv2d', got 'conv3d'"),
        ("conv2d", {}, "shape must be that of the weight of a conv2d"),
        ("conv2d", {"shape": (8, 8, 3, 3)}, "size must be the height and width of the images, got None"),
    ],
)
def test_bad_arguments(kind, changes, reason):
    with pytest.raises(ValueError, match=reason):
        choose(kind, density=0.1, **{**LINEAR, **changes})


def test_the_shipped_table(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    content = json.loads(SHIPPED.read_text())
    assert {"environment", "margin", *AXES} == content.keys()
    assert content["margin"] >= 1.1 and content["environment"]["torch"]
    grids = table()
    assert grids == parse(content)
    assert grids.keys() == {(kind, dtype, n) for kind in AXES for dtype in calibrate.DTYPES for n in NEIGHBOURS}
    for (kind, _, _), grid in grids.items():
        assert grid.axes == tuple(tuple(map(float, values)) for values in calibrate.FULL[kind])


def test_the_table_is_part_of_the_package():
    assert SHIPPED.parent == module.Path(module.__file__).parent
