"""E5: rows that resume, a picture, and verdicts that follow the rows."""

import math

import pytest

from sparseprune.papers import random_ntk_training as e5

TINY = e5.Size("mlp", (4, 16), 1, 0)


def test_rows_picture_and_claims_and_a_second_run_trains_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(e5, "QUICK", TINY)
    told = []
    options = {"out": tmp_path, "quick": True, "data_dir": None}
    rows = e5.EXPERIMENT.rows(**options, progress=lambda done, total, what: told.append((done, total)))
    assert told == [(n, 13) for n in range(1, 14)] and len(rows) == 13
    monkeypatch.setattr(e5, "perform", None)
    assert e5.EXPERIMENT.rows(**options, progress=None) == rows
    e5.EXPERIMENT.picture(rows, tmp_path / "E5.png")
    assert (tmp_path / "E5.png").read_bytes().startswith(b"\x89PNG")
    assert all(claim.text and claim.found for claim in e5.EXPERIMENT.claims(rows))
    by_method = {row["key"]["method"]: row for row in rows if row["key"]["density"] == e5.LOW}
    assert by_method[e5.RESCALED]["density"] == by_method[e5.RANDOM]["density"] == pytest.approx(e5.LOW, rel=1e-3)
    assert all(row["condition"] is None or row["condition"] >= 1 for row in rows)  # None: infinite, a dead net
    assert rows[0]["condition"] and all(0 < row["rank"] <= 64 and 0 <= row["alignment"] <= 1 for row in rows)


def test_seeds_are_other_trainings(tmp_path, monkeypatch):
    monkeypatch.setattr(e5, "QUICK", e5.Size("mlp", (16,), 1, 0))
    runs = [e5.rows(out=tmp_path, quick=True, data_dir=None, progress=None, seed=seed) for seed in (0, 1)]
    assert [{row["key"]["seed"] for row in rows} for rows in runs] == [{0}, {1}]


def made_up(accuracy) -> list:
    methods = [e5.RANDOM, e5.RESCALED, *(f"{score}/threshold" for score in e5.SCORES)]
    cells = [(e5.DENSE, 1.0), *((method, density) for density in (e5.HIGH, e5.LOW) for method in methods)]
    return [
        {
            "key": {"method": method, "density": density, "seed": seed},
            "accuracy": accuracy(method, density) + 0.001 * math.sin(10 * seed + len(method)),
            "condition": None if density == e5.LOW else 10.0,
            "alignment": accuracy(method, density),
        }
        for seed in range(4)
        for method, density in cells
    ]


def test_verdicts_follow_the_rows():
    worse = {e5.RANDOM: 0.5, e5.RESCALED: 0.3}
    rows = made_up(lambda method, density: 0.97 if density > e5.LOW else 0.9 - worse.get(method, 0.0))
    verdicts = {claim.text.split(" at ")[0]: claim.holds for claim in e5.claims(rows)}
    assert all(verdicts.values()) and len(verdicts) == 10
    rows = made_up(lambda method, density: 0.97 if density == 1 else 0.9)
    first, second, loses, helps, *orders = (claim.holds for claim in e5.claims(rows))
    assert (first, second, loses) == (False, False, True) and helps is None and None in orders


def test_one_seed_cannot_tell():
    rows = [row for row in made_up(lambda method, density: density) if row["key"]["seed"] == 0]
    assert all(claim.holds is None for claim in e5.claims(rows))
