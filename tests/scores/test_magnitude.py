"""Magnitude scores."""

import torch
import torch.nn.functional as F
from torch import nn

from sparseprune.scores import Magnitude


def test_is_the_absolute_weight_times_the_mask():
    layer = nn.Linear(2, 2)
    layer.weight.data = torch.tensor([[1.0, -2.0], [0.0, -0.5]])
    dense = Magnitude().score(layer, [], loss=F.cross_entropy, masks=None, seed=0)
    assert dense["weight"].tolist() == [[1.0, 2.0], [0.0, 0.5]]
    mask = {"weight": torch.tensor([[True, False], [True, True]])}
    masked = Magnitude().score(layer, [], loss=F.cross_entropy, masks=mask, seed=0)
    assert masked["weight"].tolist() == [[1.0, 0.0], [0.0, 0.5]]
