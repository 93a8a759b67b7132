"""Paper 002's experiments: rows that resume, pictures, and verdicts that follow the rows."""

import copy

import pytest

from sparseprune.papers import PAPERS, _lottery_rows, _statistics, lottery, lottery_neurons

EXPERIMENTS = PAPERS["002"]


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(lottery, "QUICK", lottery.Sizes((64, 1024, 4096), 30, ((100, 20), (400, 20)), (32, 128), 6, 20))
    monkeypatch.setattr(lottery_neurons, "QUICK", lottery_neurons.Sizes((10, 60), 6, (128, 512), 2, 6, (4,)))


def run(name, folder):
    return EXPERIMENTS[name].rows(out=folder, quick=True, data_dir=None, progress=None)


@pytest.mark.parametrize("name", ["lemma24", "theorem23", "theorem21", "neuron", "separation"])
def test_rows_picture_and_claims_and_a_second_run_computes_nothing(name, tmp_path):
    told = []
    options = {"out": tmp_path, "quick": True, "data_dir": None}
    rows = EXPERIMENTS[name].rows(**options, progress=lambda done, total, what: told.append((done, total)))
    assert told == [(place + 1, len(rows)) for place in range(len(rows))]
    before = (tmp_path / f"{name}.jsonl").read_bytes()
    assert run(name, tmp_path) == rows and (tmp_path / f"{name}.jsonl").read_bytes() == before
    EXPERIMENTS[name].picture(rows, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    claims = EXPERIMENTS[name].claims(rows)
    assert claims and all(claim.text and claim.found for claim in claims)
    assert len({claim.text for claim in claims}) == len(claims)


@pytest.mark.parametrize("name", ["theorem23", "theorem21"])
def test_verdicts_follow_the_rows(name, tmp_path):
    rows = run(name, tmp_path)
    right = EXPERIMENTS[name].claims(rows)
    assert [claim.holds for claim in right[:3]] == [True] * 3
    spoilt = copy.deepcopy(rows)
    spoilt[0]["active"][0] += 1
    spoilt[0]["untouched"] = False
    spoilt[0]["errors"][0] = 2 * spoilt[0]["bounds"][0] + 1
    assert [claim.holds for claim in EXPERIMENTS[name].claims(spoilt)[:3]] == [False] * 3


def test_another_seed_is_another_draw(tmp_path):
    options = {"out": tmp_path, "quick": True, "data_dir": None, "progress": None}
    first, second = (EXPERIMENTS["theorem21"].rows(**options, seed=seed) for seed in (0, 1))
    assert not {e for row in first for e in row["errors"]} & {e for row in second for e in row["errors"]}


def test_tickets_without_an_error_are_a_row(tmp_path, monkeypatch):
    monkeypatch.setattr(lottery.theory, "searched_error", lambda *_: 0.0)
    (row,) = (row for row in run("theorem21", tmp_path) if row["key"]["curve"] == "sized")
    assert row["error"] == row["least"] == row["most"] == 0


def test_success_is_judged_by_its_interval():
    judge = _lottery_rows.success
    assert [judge("x", wins, 300, 0.95).holds for wins in (300, 290, 150)] == [True, None, False]


def test_slopes_of_logs():
    rows = [{"key": {"k": k}, "errors": [a / k for a in (1.0, 2.0, 3.0)]} for k in (10, 100, 1000)]
    slope, error = _statistics.log_slope(rows, "k")
    assert slope == pytest.approx(-1) and 0 < error < 0.2
