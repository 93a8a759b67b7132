"""Figure 3 of paper 004: matching units and edges, rows that resume, a picture, verdicts that follow the rows."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from sparseprune.data import load
from sparseprune.papers import statistical_mechanics as fig3

from ..one_thread import one_thread

__all__ = ["one_thread"]

TINY = replace(fig3.QUICK["digits"], hidden=(12, 10), until=0.6, repetitions=2, shares=(0.2, 0.5, 0.9))


@pytest.mark.parametrize(
    ("inputs", "units", "following", "printed"),
    [
        (3072, 1000, 1000, "397:614 472:921 548:1228 623:1536 699:1843 774:2150 849:2457 925:2764"),
        (784, 500, 500, "256:156 287:235 317:313 348:392 378:470 409:548 439:627 470:705"),
    ],
)
def test_units_and_edges_are_the_papers_ratios(inputs, units, following, printed):
    shares = [n / 10 for n in range(2, 10)]
    edges = [fig3.edges_of_a_unit(share, inputs) for share in shares]
    nodes = [fig3.matching_units(k, inputs, units, following) for k in edges]
    assert " ".join(f"{n}:{k}" for n, k in zip(nodes, edges, strict=True)) == printed


def test_the_net_is_the_papers():
    net = fig3.sigmoid_net(load("digits"), (20, 10), seed=0)
    assert [type(layer) for layer in net] == [nn.Flatten, *[nn.Linear, nn.Sigmoid] * 2, nn.Linear]
    bound = (6 / (64 + 20)) ** 0.5
    assert net[1].weight.abs().max() <= bound and net[1].weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)
    assert (net[1].bias == 0).all() and net(torch.zeros(3, 1, 8, 8)).shape == (3, 10)
    assert fig3.FULL["mnist"].hidden == (500, 500) and fig3.FULL["cifar10"].hidden == (1000, 1000, 1000)


def test_rows_picture_and_claims_and_a_second_run_does_nothing(tmp_path, monkeypatch):
    monkeypatch.setitem(fig3.QUICK, "digits", TINY)
    told, options = [], {"out": tmp_path, "quick": True, "data_dir": None}
    rows = fig3.rows(**options, progress=lambda done, total, what: told.append((done, total, what)))
    assert len(rows) == 9 and told[-1][:2] == (15, 15) and "training" in told[0][2]
    monkeypatch.setattr(fig3, "train", None)
    monkeypatch.setattr(fig3.Bench, "trial", None)
    assert fig3.rows(**options, progress=None) == rows
    fig3.picture(rows, tmp_path / "fig3.png")
    assert (tmp_path / "fig3.png").read_bytes().startswith(b"\x89PNG")
    assert len(fig3.claims(rows)) == 4 and all(claim.text and claim.found for claim in fig3.claims(rows))
    for row in rows:
        assert len(row["values"]) == row["key"]["repetitions"] == (1 if row["key"]["method"] == fig3.IMPORTANCE else 2)
        assert row["paper"] is None and 0 <= row["test_error"] <= 100


def test_an_interrupted_run_keeps_its_net_and_its_trials(tmp_path, monkeypatch):
    monkeypatch.setitem(fig3.QUICK, "digits", TINY)
    whole = fig3.rows(out=tmp_path / "whole", quick=True)
    trial, calls = fig3.Bench.trial, []

    def failing(self, *args):
        calls.append(args)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return trial(self, *args)

    monkeypatch.setattr(fig3.Bench, "trial", failing)
    with pytest.raises(KeyboardInterrupt):
        fig3.rows(out=tmp_path, quick=True)
    monkeypatch.setattr(fig3, "train", None)  # the net comes from its checkpoint
    assert fig3.rows(out=tmp_path, quick=True) == whole
    assert len(calls) == 5 + 15 - 4


def test_all_methods_prune_the_first_layer_to_matching_sizes(tmp_path, monkeypatch):
    bench = fig3.Bench(load("digits"), replace(TINY, until=1.1), tmp_path, 0, lambda *_: None)
    smaller, random, importance = (bench.trial(method, 0.5, 0) for method in fig3.METHODS)
    assert smaller[1].out_features == smaller[3].in_features == fig3.matching_units(32, 64, 12, 10) == 7
    assert (random[1].weight_mask.sum(1) == 32).all() and (importance[1].weight_mask.sum(1) == 32).all()
    assert not torch.equal(random[1].weight_mask, importance[1].weight_mask)


def made_up(dataset: str, errors: dict[str, list[float]], deviation: float = 0.01) -> list:
    return [
        {
            "key": {"dataset": dataset, "method": method, "share": share},
            "test_error": error,
            "deviation": 0.0 if method == fig3.IMPORTANCE else deviation,
            "values": [error] * (1 if method == fig3.IMPORTANCE else 10),
        }
        for method in fig3.METHODS
        for share, error in zip(fig3._SHARES, errors[method], strict=True)
    ]


def test_verdicts_on_the_papers_numbers_are_the_papers():
    """As read off the figure, with small deviations; the one claim that its numbers deny is a tie at 90 %."""
    mnist = fig3.claims(made_up("mnist", {m: list(v[:-1]) for m, v in fig3.PRINTED["mnist"].items()}))
    assert [claim.holds for claim in mnist] == [True, True, None, True]
    cifar = fig3.claims(made_up("cifar10", {m: list(v[:-1]) for m, v in fig3.PRINTED["cifar10"].items()}))
    assert [claim.holds for claim in cifar] == [True, False, True]
    wide = fig3.claims(made_up("mnist", {m: list(v[:-1]) for m, v in fig3.PRINTED["mnist"].items()}, deviation=1.0))
    assert [claim.holds for claim in wide] == [None] * 4


def test_one_repetition_cannot_tell():
    rows = made_up("mnist", {m: list(v[:-1]) for m, v in fig3.PRINTED["mnist"].items()})
    assert all(claim.holds is None for claim in fig3.claims([{**row, "values": [row["test_error"]]} for row in rows]))


def test_no_data_is_an_error_that_names_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="mnist"):
        fig3.rows(out=tmp_path / "out", quick=True, data_dir=tmp_path)
    assert not (tmp_path / "out").exists()
