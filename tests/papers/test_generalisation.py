"""Paper 003's experiment: rows that resume, a picture, verdicts that follow the rows."""

import math

import pytest

from sparseprune.papers import PAPERS, generalisation
from sparseprune.papers import _generalisation_claims as judges
from sparseprune.papers import _generalisation_rows as read
from sparseprune.papers._statistics import Z, mean_error
from sparseprune.theory.generalisation import Model

EXPERIMENT = PAPERS["003"]["sweep"]
TINY = generalisation.Sizes(
    Model(classes=2, examples=4, units=16), (1.0, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02), 3, 2, tests=50
)
KEEP = [1.0, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, Model().over]


def test_rows_picture_and_claims_and_a_second_run_computes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(generalisation, "QUICK", TINY)
    told, options = [], {"out": tmp_path, "quick": True, "data_dir": None}
    rows = EXPERIMENT.rows(**options, progress=lambda done, total, what: told.append((done, total, what)))
    assert [one[:2] for one in told] == [(k + 1, 13) for k in range(13)]
    assert told[0][2] == "sweep, seed 10" and told[-1][2] == "twice the units, seed 11"
    before = (tmp_path / "sweep.jsonl").read_bytes()
    assert EXPERIMENT.rows(**options, progress=None) == rows
    assert len({row["test loss"][0] for row in rows[:3]}) == 3 and (tmp_path / "sweep.jsonl").read_bytes() == before
    EXPERIMENT.picture(rows, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    found = EXPERIMENT.claims(rows)
    assert len({claim.text for claim in found}) == len(found) == 28 and all(claim.found for claim in found)
    lines = EXPERIMENT.shown(rows)
    assert len(lines) == 9 + 3 * 6 + 2 * 9
    assert lines[3]["accuracy"] == pytest.approx(sum(row["accuracy"][3] for row in rows[:3]) / 3)
    assert lines[0]["beats p = 1"] == "0/3" and lines[0]["specified"] == 0.852


def test_seeds_are_new_ones_and_other_runs_other_seeds():
    first, second = ([key["seed"] for key in generalisation._plan(TINY, seed)] for seed in (0, 1))
    assert first[:3] == [10, 11, 12] and not set(first) & set(second)


def made(accuracy, loss, seeds=10, training=9e-4):
    """Return rows of a sweep whose seeds scatter by .002 about these means, masks as expected."""
    net = Model()
    rows = []
    for seed in range(seeds):
        off = 0.002 * (seed % 5 - 2)
        edges = [[int(k < round(4 * net.own_edge(p))) for k in range(4)] for p in KEEP]
        rows.append(
            {
                "key": {"curve": "sweep", "keep": KEEP, **vars(net), "seed": seed},
                "accuracy": [a + off * (1 + 0.1 * k) for k, a in enumerate(accuracy)],
                "test loss": [a + off * (1 + 0.1 * k) for k, a in enumerate(loss)],
                "training loss": [training] * 10,
                "steps": [400] * 10,
                "noise norm": [k + 1 + off * k for k in range(10)],
                "signal": [[1.0] * 4] * 10,
                "own edges": edges,
                "of class": [[0.9 * e + 0.1 + off * k for k, e in enumerate(one)] for one in edges],
            }
        )
    return rows


ACCURACY = [0.852, 0.895, 0.925, 0.936, 0.935, 0.9, 0.85, 0.63, 0.47, 0.27]
LOSS = [0.694, 0.63, 0.58, 0.57, 0.56, 0.6, 0.61, 0.8, 1.28, 5.75]


def test_verdicts_follow_the_rows():
    right, wrong = (
        {claim.text.split(" (at ")[0]: claim.holds for claim in judges.claims(rows)}
        for rows in (made(ACCURACY, LOSS), made([1.2 - a for a in ACCURACY], [1.5 - a for a in LOSS], training=0.1))
    )
    of_masks = {text for text in right if "edge" in text or "off the signal" in text}
    laws = {text for text in right if "follows" in text}
    assert len(right) == 17 and len(of_masks - laws) == 4 and len(laws) == 2
    assert all(right[text] for text in right.keys() - laws)
    assert not any(wrong[text] is not False for text in right.keys() - laws - of_masks)


def test_the_laws_of_the_fall_are_told_apart():
    net = Model()
    top = ACCURACY[4]
    for chance, holds in ((net.every_class, [True, False]), (net.own_edge, [False, True])):
        accuracy = ACCURACY[:5] + [0.25 + (top - 0.25) * chance(p) for p in KEEP[5:]]
        found = [claim.holds for claim in judges.claims(made(accuracy, LOSS, seeds=800)) if "follows" in claim.text]
        assert found == holds
        few = [claim.holds for claim in judges.claims(made(accuracy, LOSS)) if "follows" in claim.text]
        assert True not in few  # too few masks to tell a law


def test_masks_that_keep_other_edges_refute_their_chance():
    rows = made(ACCURACY, LOSS, seeds=30)
    for row in rows:
        row["own edges"] = [[1] * 4] * 10
    spoilt = next(c for c in judges.claims(rows) if c.text.startswith("a class keeps an edge"))
    assert spoilt.holds is False


def test_many_differences_are_judged_by_the_least_sure():
    def judge(*differences):
        return judges._all_above("x", [(0.5, *one) for one in differences]).holds

    assert judge((1.0, 0.1), (0.5, 0.1)) is True
    assert judge((1.0, 0.1), (0.3, 0.1)) is None
    assert judge((1.0, 0.1), (-0.3, 0.1)) is None
    assert judge((1.0, 0.1), (-0.5, 0.1)) is False
    assert judge() is None


def test_means_are_over_seeds_and_differences_paired():
    rows = made(ACCURACY, LOSS)
    wider = mean_error(range(10))[1] / (math.sqrt(82.5 / 9) / math.sqrt(10))
    assert wider == pytest.approx(5.345 / Z, rel=1e-3)  # Student's t of 9 degrees of freedom
    mean, error = read.mean(rows, "accuracy", 0.3)
    assert mean == pytest.approx(0.936) and error == pytest.approx(wider * 1.3 * 0.002 * math.sqrt(2 / 9))
    mean, error = read.paired(rows, "accuracy", 0.3, 1.0)
    assert mean == pytest.approx(0.084) and error == pytest.approx(wider * 0.3 * 0.002 * math.sqrt(2 / 9))
