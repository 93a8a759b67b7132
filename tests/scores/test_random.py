"""Random scores."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from sparseprune.scores import Random


def _score(model, seed, masks=None):
    return Random().score(model, [], loss=F.cross_entropy, masks=masks, seed=seed)


def test_uniform_in_0_1_and_never_zero():
    s = _score(nn.Linear(400, 300), 0)["weight"].double().flatten()
    assert float(s.min()) > 0 and float(s.max()) <= 1
    distance = (s.sort().values - (torch.arange(len(s)) + 0.5) / len(s)).abs().max()
    assert float(distance) < 2.7 / math.sqrt(len(s))  # Kolmogorov-Smirnov: p < 1e-6


def test_differs_between_seeds_and_between_layers():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    a, b = _score(model, 0), _score(model, 1)
    assert not torch.equal(a["0.weight"], b["0.weight"])
    assert not torch.equal(a["0.weight"], a["1.weight"])


def test_does_not_depend_on_the_weights():
    assert torch.equal(_score(nn.Linear(8, 8), 3)["weight"], _score(nn.Linear(8, 8).double(), 3)["weight"])
