"""Paper 001's theory: rows that resume, a picture, verdicts that follow the rows."""

import dataclasses
import math

import pytest

from sparseprune.papers import PAPERS, sketching_theory
from sparseprune.papers import _sketching_theory_claims as judges

EXPERIMENT = PAPERS["001"]["theory"]
TINY = sketching_theory.Sizes(100, 150, (20, 80), (0.0, 1.0), (4,))
FALSE = {
    "Lemma 4.1 as printed: minus |X^T w0| / s",
    "Lemma 4.2 as printed: at most |w0|_2^2 / s",
    "Theorem 4.4 as printed, with max |w0|",
    "at most 1/d of the error of uniform draws: sketching avoids their factor d",
    "at every step the sketch errs less than uniform draws",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("theory")


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(sketching_theory, "QUICK", TINY)


@pytest.fixture
def rows(folder, tiny):
    return EXPERIMENT.rows(out=folder, quick=True, data_dir=None, progress=None)


def narrowed(rows, factor=1.0):
    """Return rows whose draws are `factor` times the exact values, with intervals of a thousandth."""
    sharp = []
    for row in rows:
        drawn = {"error": factor * row["exact"], "standard_error": 1e-3 * row["exact"]}
        if "kept" in row:
            drawn |= {"kept": [factor * row["expected kept"], 0.01], "mean of m": [factor, 0.01]}
        sharp.append(row | drawn)
    return sharp


def test_rows_picture_and_claims_and_a_second_run_computes_nothing(rows, folder, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(sketching_theory, "theory", None)
    again = EXPERIMENT.rows(
        out=folder, quick=True, data_dir=None, progress=lambda done, total, what: told.append((done, total))
    )
    assert again == rows and told == [(k + 1, len(rows)) for k in range(len(rows))]
    EXPERIMENT.picture(rows, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert all(claim.text and claim.found for claim in EXPERIMENT.claims(rows))


def test_rows_measure_what_their_formulas_say(rows):
    told = [row for row in rows if row["standard_error"] < 0.2 * row["exact"]]
    assert len(told) > len(rows) / 2 and {row["key"]["curve"] for row in told} == {row["key"]["curve"] for row in rows}
    for row in told:
        assert abs(row["error"] - row["exact"]) < 5 * row["standard_error"], row["key"]


def test_seeds_are_other_draws(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(sketching_theory, "QUICK", dataclasses.replace(TINY, samples=10, many=10))
    others = EXPERIMENT.rows(out=tmp_path, quick=True, data_dir=None, progress=None, seed=1)
    assert all(a["error"] != b["error"] for a, b in zip(rows, others, strict=True))


def test_what_is_printed_falsely_and_what_is_concluded_from_it_does_not_hold(rows):
    verdicts = {claim.text.split(" (false for")[0]: claim.holds for claim in EXPERIMENT.claims(narrowed(rows))}
    assert {text for text, holds in verdicts.items() if holds is False} == FALSE
    assert None not in verdicts.values() and len(verdicts) == 24


def test_draws_that_miss_the_formulas_refute_them(rows):
    holds = {claim.text: claim.holds for claim in EXPERIMENT.claims(narrowed(rows, 1.1))}
    for start in (
        "Lemma B.1",
        "E |m|_0",
        "the identity (S)",
        "Lemma 4.1, corrected",
        "Lemma 4.2, corrected: the error",
    ):
        assert next(verdict for text, verdict in holds.items() if text.startswith(start)) is False
    for start in ("Theorem 4.4, corrected: the error", "Lemma 4.5: the error", "masks of the same data"):
        assert next(verdict for text, verdict in holds.items() if text.startswith(start)) is False


def test_the_judge_of_bounds():
    def judge(*shares: tuple[float, float, float]) -> bool | None:
        return judges._small("x", [judges.Share(*share) for share in shares], "share").holds

    assert judge((0.99, 0.1, 0.98), (0.5, 0.01, 0.5)) is True
    assert judge((1.1, 0.1, 0.98)) is True  # above by less than its interval
    assert judge((1.1, 0.01, 0.98)) is False  # the draws refute what the formula says
    assert judge((1.0, 0.01, 1.01)) is False
    assert judge((0.8, 0.01, 0.98)) is None  # the formula is not what was drawn


def test_weights_are_quantiles_of_their_law():
    for law, moment, square in (
        ("equal", 1, 1),
        ("gaussian", math.sqrt(2 / math.pi), 1),
        ("laplace", 1, 2),
        ("log-normal(1)", math.exp(0.5), math.exp(2)),
    ):
        w = sketching_theory.weights(law, 100_000)
        assert float(w.abs().mean()) == pytest.approx(moment, rel=1e-3)
        assert float(w.square().mean()) == pytest.approx(square, rel=1e-2)
