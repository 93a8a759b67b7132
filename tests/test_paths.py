"""Kept weights on paths, and collapse that no count of a layer shows."""

import torch
from torch import nn

from sparseprune import models, prune
from sparseprune.masks import Masks
from sparseprune.paths import effective
from sparseprune.scores import SNIP


def test_a_weight_counts_if_some_path_of_kept_weights_goes_through_it():
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2))  # its biases are not zero
    masks = {
        "0.weight": torch.tensor([[True, True, False], [False, False, False]]),
        "2.weight": torch.tensor([[True, True], [False, True]]),
    }
    before = {name: t.clone() for name, t in model.state_dict().items()}
    assert effective(model, masks) == {"0.weight": 2, "2.weight": 1}
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


def test_a_net_cut_in_two_has_collapsed_though_every_layer_keeps_some():
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2))
    masks = Masks({"0.weight": torch.tensor([[True] * 3, [False] * 3]), "2.weight": torch.tensor([[False, True]] * 2)})
    assert not masks.report().collapsed
    report = masks.report(model)
    assert report.collapsed == ("0.weight", "2.weight")
    assert str(report).endswith("COLLAPSE: no path of kept weights from the inputs to the outputs")


def test_snip_collapses_vgg19_at_2_percent_and_it_is_told_before_training():
    """The sketching paper's table 1: chance on CIFAR-100. No layer is empty, yet no path is left."""
    model = models.build("vgg19", seed=0, classes=100)
    x = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    y = torch.randint(100, (8,), generator=torch.Generator().manual_seed(2))
    report = prune(model, 0.02, score=SNIP(mode="train"), data=[(x, y)]).report(model)
    assert len(report.collapsed) == len(report.rows)
    assert prune(model, 0.02, score="random", distribution="erk").report(model).collapsed == ()
