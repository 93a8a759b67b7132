"""The summary: pairs by seed, counts what went wrong, and shows all of it."""

import pytest
from rich.console import Console

from sparseprune.harness import DENSE
from sparseprune.summary import Line, Stat, summarise, table

from .rows import rows_of


def printed(lines: list[Line]) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table(lines, "title"))
    return capture.get()


def header(text: str) -> str:
    return next(line for line in text.splitlines() if "density" in line)


def test_the_summary_pairs_seed_by_seed():
    lines = summarise(rows_of(densities=(0.1, 0.5)))
    assert [(line.density, line.method) for line in lines] == [
        *((1.0, DENSE), (0.5, "magnitude/threshold"), (0.5, "magnitude/multinomial")),
        *((0.1, "magnitude/threshold"), (0.1, "magnitude/multinomial")),
    ]
    dense, threshold, sketch = lines[:3]
    assert dense.accuracy == Stat(0.95, 0.0) and dense.to_dense is None and dense.prune_ms is None
    assert threshold.accuracy.mean == pytest.approx(0.795)
    assert threshold.accuracy.std == pytest.approx(0.01 / 2**0.5), "the sample standard deviation"
    assert threshold.to_threshold is None and threshold.to_dense.mean == pytest.approx(-0.155)
    assert (threshold.to_dense.low, threshold.to_dense.high) == pytest.approx((-0.16, -0.15))
    assert (threshold.to_dense.wins, threshold.to_dense.ties, threshold.to_dense.losses) == (0, 0, 2)
    assert sketch.to_threshold.mean == pytest.approx(0.02) and sketch.to_threshold.std == pytest.approx(0)
    assert (sketch.to_threshold.wins, sketch.to_threshold.losses) == (2, 0)
    assert sketch.achieved.mean == pytest.approx(0.501) and sketch.prune_ms == 10.5


def test_a_seed_without_its_partner_is_no_pair():
    rows = rows_of(densities=(0.5,), seeds=3)
    rows[3] = {"key": rows[3]["key"], "error": "x"}  # the dense net of seed 1
    line = summarise(rows)[1]
    assert line.seeds == 3 and line.to_dense.losses == 2


def test_options_belong_to_the_method_and_its_threshold_to_the_score():
    methods = ("snip(mode=train)/threshold", "snip(mode=train)/multinomial(at=each)", "snip/multinomial")
    by_method = {line.method: line for line in summarise(rows_of(methods, (0.5,)))}
    assert by_method[methods[1]].to_threshold.mean == pytest.approx(0.1)
    assert by_method[methods[2]].to_threshold is None


def test_the_table_shows_everything_uncut():
    rows = rows_of(densities=(0.1, 0.5))
    rows[1] = {"key": rows[1]["key"], "error": "ValueError: no luck"}
    rows[2] = {**rows[2], "collapsed": ["layer"], "diverged": True}
    text = printed(summarise(rows))
    cells = [line.split() for line in text.splitlines()]
    assert ["1", "dense", "95.00", "±", "0.00", "100.10"] in cells
    first = [line for line in text.splitlines() if "magnitude/multinomial" in line][1]
    assert "1/2" in first, "collapse in one seed of two"
    assert "-13.50 [-14.00, -13.00]" in first and "0-0-2" in first, "the difference to dense, its interval, losses"
    assert "+2.00 [+2.00, +2.00]" in first and "1-0-0" in first, "to the threshold of the seed that has one"
    assert "failed: magnitude/threshold 0.1, 1 of 2 seed(s): ValueError: no luck" in text
    assert "diverged: magnitude/multinomial 0.1, 1 of 2 seed(s)" in text
    assert "…" not in text and all(len(line.rstrip()) <= 150 for line in text.splitlines())
    assert "layout" not in header(text) and "peak MB" not in header(text)


def test_layouts_are_named_where_one_is_not_masked_and_compared_where_there_are_several():
    csr = rows_of(densities=(0.5,), layout="csr")
    alone = header(printed(summarise(csr)))
    assert "layout" in alone and "- masked" not in alone
    lines = summarise([*rows_of(densities=(0.5,)), *csr])
    assert [line.to_masked is None for line in lines] == [True, True, True, False, False]
    assert lines[3].to_masked.ties == 2
    assert all(name in header(printed(lines)) for name in ("layout", "- masked", "step ms", "peak MB"))


def test_rows_of_versions_without_timings_have_none():
    lines = summarise(rows_of())
    assert "step ms" in printed(lines) and all(line.step_ms is None for line in lines)
