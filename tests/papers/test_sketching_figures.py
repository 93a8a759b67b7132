"""Paper 001's figures: rows that resume, pictures, and verdicts that follow the rows."""

import numpy as np
import pytest
import torch

from sparseprune.papers import PAPERS
from sparseprune.papers import sketching_norms as norms
from sparseprune.papers import sketching_weights as weights

OPTIONS = {"quick": True, "data_dir": None}


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(weights, "DENSITY", 0.8)  # one level of IMP
    monkeypatch.setattr(weights, "SEEDS", 2)
    monkeypatch.setattr(norms, "QUICK", norms.Size("digits", "mlp", 2, 1, 10, 20))


@pytest.mark.parametrize("name, module", [("fig1a", weights), ("fig1b", weights), ("fig2", norms)])
def test_rows_picture_and_claims_and_a_second_run_computes_nothing(name, module, tmp_path, monkeypatch):
    experiment, told = PAPERS["001"][name], []
    tell = lambda done, total, what: told.append((done / total, what))  # noqa: E731
    rows = experiment.rows(out=tmp_path, progress=tell, **OPTIONS)
    assert told[-1][0] == 1 and all(what.startswith(name) for _, what in told)
    monkeypatch.setattr(module, "models", None)
    assert experiment.rows(out=tmp_path, progress=None, **OPTIONS) == rows
    experiment.picture(rows, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert all(claim.text and claim.found for claim in experiment.claims(rows)) and experiment.shown(rows)


def test_kept_weights_are_measured_layer_by_layer():
    layers = {
        "a": (torch.tensor([1.0, -3.0]), torch.tensor([False, True])),
        "b": (torch.tensor([0.0, 2.0]), torch.tensor([True, True])),
        "c": (torch.tensor([5.0, 6.0]), torch.tensor([False, False])),  # collapsed: nothing to measure
    }
    found = weights._kept_weights(layers)
    assert found["layers"] == {"a": 1.5, "b": 1.0} and found["larger"] == 1.25
    assert sum(found["histograms"]["b"]["shares"]) == pytest.approx(1)


def test_weights_verdicts_follow_the_rows():
    def rows(synflow, imp):
        larger = {weights.UNIFORM: 1.0, weights.SYNFLOW: synflow, "imp(rewind=4)/threshold": imp}
        return [
            {"key": {"method": method, "seed": seed}, "larger": value + 0.001 * seed * value}
            for method, value in larger.items()
            for seed in range(3)
        ]

    assert [claim.holds for claim in PAPERS["001"]["fig1a"].claims(rows(2.0, 1.5))] == [True, True, True]
    assert [claim.holds for claim in PAPERS["001"]["fig1a"].claims(rows(0.9, 1.5))] == [False, True, False]


def test_norms_of_a_ticket_and_of_random_masks_of_its_size():
    values = torch.linspace(-1, 2, 30).reshape(5, 6)
    mask = values.abs() > 1.2
    found = norms._norms(values, mask, 4000, np.random.default_rng(0))
    assert found["kept"] == int(mask.sum()) and found["ticket"] == pytest.approx(float(values[mask].norm()))
    # E |kept|^2 = k/n |w|^2, whatever the mask
    expected = found["kept"] / 30 * float(values.square().sum())
    assert found["random"] ** 2 + found["std"] ** 2 == pytest.approx(expected, rel=0.03)
    assert found["lowest"] <= found["random"] <= found["highest"] <= found["ticket"]
    assert sum(found["shares"]) == pytest.approx(1)


def test_norms_verdicts_follow_the_rows():
    def rows(ticket):
        layer = {"kept": 1, "ticket": ticket, "random": 1.0, "std": 0.1, "lowest": 0.7, "highest": 1.4}
        return [{"key": {"seed": 0}, "layers": ["a"], "levels": [[layer], [layer | {"ticket": 2.0}]]}]

    assert [[c.holds for c in norms.claims(rows(ticket))] for ticket in (1.5, 1.2, 0.9)] == [
        [True, True],
        [None, True],
        [False, True],
    ]
