"""Gradient scores of a transformer: attention, layer norms and GELU between the prunable layers."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sparseprune import scores
from sparseprune.prunable import prunable
from sparseprune.prune import prune

from .tiny import gradients


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        block = nn.TransformerEncoderLayer(8, 2, 12, activation="gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens):
        return self.head(self.encoder(self.embed(tokens)).mean(1))


def _model(dtype=torch.float32):
    torch.manual_seed(0)
    return Tiny().to(dtype)


def _batch(n=6):
    g = torch.Generator().manual_seed(1)
    return torch.randint(11, (n, 5), generator=g), torch.randint(3, (n,), generator=g)


OBJECTS = [
    scores.SNIP(),
    scores.SNIP(reference="tensorflow"),
    scores.GraSP(),
    scores.GraSP(reference="authors"),
    scores.IterSNIP(),
    scores.FORCE(),
    scores.GRASPIt(),
    scores.ProsPr(),
]


@pytest.mark.parametrize("score", OBJECTS, ids=repr)
def test_every_gradient_score_prunes_it(score):
    model = _model()
    before = copy.deepcopy(model.state_dict())
    got = score.score(model, [_batch()] * 2, loss=F.cross_entropy, masks=None, seed=0)
    assert set(prunable(model)) <= set(got) and "encoder.layers.0.self_attn.out_proj.weight" in got
    assert all(s.isfinite().all() and s.count_nonzero() > 0.9 * s.numel() for n, s in got.items() if "weight" in n)
    masks = prune(model, 0.3, score=score, iterations=2, data=[_batch()])
    assert 0.2 < masks.kept / masks.total < 0.4
    assert all(torch.equal(model.state_dict()[n], t) for n, t in before.items())


def test_snip_is_the_weight_times_its_gradient():
    model = _model(torch.float64).eval()
    weights = {n: w.detach() for n, w in prunable(model).items()}
    got = scores.SNIP().score(model, [_batch()], loss=F.cross_entropy, masks=None, seed=0)
    for name, g in gradients(model, weights, *_batch()).items():
        torch.testing.assert_close(got[name], (weights[name] * g).abs(), rtol=1e-9, atol=1e-14)


def test_grasp_is_the_weight_times_the_gradients_change_along_itself():
    model = _model(torch.float64).eval()
    weights = {n: w.detach() for n, w in prunable(model).items()}
    got = scores.GraSP(temperature=1.0).score(model, [_batch()], loss=F.cross_entropy, masks=None, seed=0)
    g, h = gradients(model, weights, *_batch()), 1e-5
    ahead, behind = (gradients(model, {n: w + step * g[n] for n, w in weights.items()}, *_batch()) for step in (h, -h))
    for name, w in weights.items():
        hg = (ahead[name] - behind[name]) / (2 * h)
        torch.testing.assert_close(got[name], w * hg, rtol=1e-4, atol=1e-8)
