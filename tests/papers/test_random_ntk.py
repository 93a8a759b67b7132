"""Paper 000's experiments: rows that resume, verdicts that follow the rows, the judges behind them."""

import dataclasses

import numpy as np
import pytest

from sparseprune.papers import PAPERS, random_ntk
from sparseprune.papers import _statistics as statistics

EXPERIMENTS = PAPERS["000"]
TINY = random_ntk.Sizes((16, 32), 32, draws=8, spread_draws=8)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(random_ntk, "QUICK", TINY)
    monkeypatch.setattr(random_ntk, "FULL", TINY)


@pytest.mark.parametrize("name", ["E1", "E2", "E3", "E4"])
def test_rows_picture_and_claims_and_a_second_run_computes_nothing(name, tmp_path, monkeypatch):
    experiment = EXPERIMENTS[name]
    told = []
    options = {"out": tmp_path, "quick": True, "data_dir": None}
    rows = experiment.rows(**options, progress=lambda done, total, what: told.append((done, total, what)))
    assert told and all(0 <= done <= total and what.startswith(name) for done, total, what in told)
    monkeypatch.setattr(random_ntk, "monte_carlo", None)
    assert experiment.rows(**options, progress=None) == rows
    experiment.picture(rows, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    claims = experiment.claims(rows)
    assert claims and all(claim.text and claim.found for claim in claims)
    assert len((tmp_path / f"{name}.jsonl").read_text().splitlines()) == len(rows)


def test_an_interrupted_run_goes_on_with_the_draws_that_are_there(tmp_path, monkeypatch):
    experiment = EXPERIMENTS["E3"]
    whole = experiment.rows(out=tmp_path / "whole", quick=True, data_dir=None, progress=None)
    options = {"out": tmp_path / "cut", "quick": True, "data_dir": None}

    def stop(done: int, total: int, what: str) -> None:
        if done > 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        experiment.rows(**options, progress=stop)
    assert experiment.rows(**options, progress=None) == whole


def test_seeds_are_other_draws(tmp_path):
    options = {"out": tmp_path, "quick": True, "data_dir": None, "progress": None}
    first, second = (EXPERIMENTS["E3"].rows(**options, seed=seed) for seed in (0, 1))
    assert all(a["mean"] != b["mean"] for a, b in zip(first, second, strict=True))


def test_e4_refutes_the_printed_limit_at_two_inputs_and_cannot_tell_at_ten(tmp_path, monkeypatch):
    monkeypatch.setattr(random_ntk, "FULL", random_ntk.Sizes((2048, 4096), 16))
    monkeypatch.setattr(random_ntk, "QUICK", dataclasses.replace(TINY, draws=256))
    rows = EXPERIMENTS["E4"].rows(out=tmp_path, quick=True, data_dir=None, progress=None)
    assert [claim.holds for claim in EXPERIMENTS["E4"].claims(rows)] == [None, None, False, True]


def test_judges():
    assert statistics.equal("x", 1.0, 0.01, 1.02).holds is True
    assert statistics.equal("x", 1.0, 0.1, 1.02).holds is None  # too wide an interval
    assert statistics.equal("x", 1.0, 0.01, 1.1).holds is False
    assert statistics.equal("x", 1.0, 0.01, 1.02, rival=0.9).holds is True
    assert statistics.equal("x", 1.0, 0.01, 1.02, rival=1.01).holds is None
    assert [statistics.above("x", 1.0, 0.1, bound, "").holds for bound in (0.5, 0.9, 1.5)] == [True, None, False]
    assert [statistics.below("x", 1.0, 0.1, bound, "").holds for bound in (0.5, 0.9, 1.5)] == [False, None, True]
    assert statistics.agree("x", [1.0, 2.0], [1.1, 2.1], [0.1, 0.1]).holds is True
    assert statistics.agree("x", [1.0, 2.0], [1.1, 2.5], [0.1, 0.1]).holds is False


def test_the_variance_fit_finds_a_and_b_within_its_interval():
    random = np.random.default_rng(0)
    densities = [1 - k / 10 for k in range(10)]
    z = []
    for _ in range(50):
        draws = [random.normal(0, np.sqrt((50 + 36 / density) / 1024), 100).tolist() for density in densities]
        found = statistics.fit_variances([[1.0] * 10, [1 / density for density in densities]], draws, 1024)
        z.append((found.coefficients - (50, 36)) / found.errors)
    assert np.abs(z).max() < 4.5 and 0.7 < np.std(z) < 1.3 and np.abs(np.mean(z, axis=0)).max() < 0.5
