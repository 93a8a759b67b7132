"""IMP against its levels written out; each known divergence is a test."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sparseprune import prune
from sparseprune.data.dataset import Dataset
from sparseprune.nn import sparsify
from sparseprune.prunable import prunable
from sparseprune.scores import IMP
from sparseprune.training import Trainer

RECIPE = {"epochs": 2, "batch_size": 16, "lr": 0.05, "seed": 5}  # 3 steps an epoch


def _data() -> Dataset:
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(40) % 3
    pixels = torch.randint(0, 256, (40, 1, 4, 4), generator=generator).to(torch.uint8)
    return Dataset.build("tiny", (pixels, targets), (pixels[:9], targets[:9]), classes=3)


def _model() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)
        )


def _score(score, model, masks=None, train=None):
    return score.score(model, [], loss=F.cross_entropy, masks=masks, seed=0, train=train or Trainer(_data(), **RECIPE))


def _masks(model):
    generator = torch.Generator().manual_seed(2)
    return {name: torch.rand(w.shape, generator=generator) > 0.4 for name, w in prunable(model).items()}


@pytest.mark.parametrize("rewind", [0, 1, 4])
def test_the_levels_are_those_written_out(rewind):
    """Dense to step r; then per level: mask, train on from step r, keep the largest of what is left."""
    model, trainer = _model(), Trainer(_data(), **RECIPE)
    got = prune(model, 0.3, score=IMP(rewind), train=trainer, iterations=3)
    total = sum(w.numel() for w in prunable(model).values())
    masks = {name: torch.ones_like(w, dtype=torch.bool) for name, w in prunable(model).items()}
    for level in (1, 2, 3):
        net = copy.deepcopy(model)
        trainer(net, rewind)
        sparsify(net, masks, layout="masked")
        trainer(net, None, rewind)
        flat = torch.cat([(w.detach().abs() * masks[n]).flatten() for n, w in prunable(net).items()])
        keep = torch.zeros(total, dtype=torch.bool)
        keep[flat.topk(round(0.3 ** (level / 3) * total)).indices] = True
        parts = keep.split([mask.numel() for mask in masks.values()])
        masks = {n: part.view(mask.shape) for (n, mask), part in zip(masks.items(), parts, strict=True)}
    assert all(torch.equal(got[name], mask) for name, mask in masks.items())


def test_the_model_is_left_as_it_was():
    model = _model().eval()
    before = copy.deepcopy(model.state_dict())
    for masks in (None, _masks(model)):
        _score(IMP(2), model, masks)
    assert all(torch.equal(t, model.state_dict()[name]) for name, t in before.items())
    assert not model.training and type(model[0]) is nn.Conv2d and all(p.grad is None for p in model.parameters())


def test_masked_weights_score_zero_under_any_optimizer():
    """Also where it moves weights that have no gradient."""

    def train(model, steps):
        assert steps is None
        with torch.no_grad():
            for p in model.parameters():
                p += 1

    model = _model()
    masks = _masks(model)
    for name, s in _score(IMP(), model, masks, train).items():
        assert torch.equal(s == 0, ~masks[name])


def test_the_net_that_is_trained_is_the_masked_one():
    model, seen = _model(), []
    masks = _masks(model)
    zeroed, x = copy.deepcopy(model), torch.randn(5, 1, 4, 4)
    for name, w in prunable(zeroed).items():
        w.data *= masks[name]
    _score(IMP(), model, masks, lambda net, steps: seen.append(net(x)))
    torch.testing.assert_close(seen[0], zeroed.train()(x))


def test_rescaled_masks_are_folded_into_the_weights_once():
    model = _model()
    masks = {name: mask * 2.5 for name, mask in _masks(model).items()}
    got = _score(IMP(), model, masks, lambda net, steps: None)
    for name, w in prunable(model).items():
        torch.testing.assert_close(got[name], (w.detach() * masks[name]).abs())


def test_calls_of_train():
    """Two arguments where there is no rewinding; else step r on the dense net, and from it."""
    calls = []
    _score(IMP(), _model(), train=lambda model, *steps: calls.append(steps))
    _score(IMP(7), _model(), train=lambda model, *steps: calls.append(steps))
    assert calls == [(None,), (7,), (None, 7)]


def test_the_masks_belong_on_the_prepared_net():
    model, expected, trainer = _model(), _model(), Trainer(_data(), **RECIPE)
    trainer(expected, 2)
    for score, net in ((IMP(2), expected), (IMP(), model)):
        prepared = score.prepared(model, train=trainer)
        assert prepared is not model
        assert all(torch.equal(t, prepared.state_dict()[name]) for name, t in net.state_dict().items())


@pytest.mark.parametrize(
    ("density", "levels"), [(1, 1), (0.9, 1), (0.8, 1), (0.79, 2), (0.8**3, 3), (0.05, 14), (0.02, 18)]
)
def test_levels_for_a_density(density, levels):
    assert IMP().steps(density) == levels


def _levels(**options):
    """How many weights each level trains, and how many are kept in the end."""
    seen, model = [], _model()

    def train(net, *steps):
        seen.append(sum(int((w != 0).sum()) for w in _weights(net)))

    return seen, prune(model, 0.3, train=train, **options).kept


TOTAL = 36 + 128 + 24


def test_every_level_keeps_the_same_share_and_the_last_the_density_asked_for():
    levels = [round(0.3 ** (level / 6) * TOTAL) for level in range(7)]
    assert _levels(score="imp") == (levels[:6], levels[6])


def test_divergence_open_lth_takes_one_weight_more_a_level():
    """It keeps |w| > the k-th magnitude counted from 0, k = ceil(0.2 n), for which k + 1 weights go."""
    left = [TOTAL]
    while len(left) < 6:
        magnitudes = torch.rand(left[-1]).sort().values
        left.append(int((magnitudes > magnitudes[math.ceil(0.2 * left[-1])]).sum()))
    assert _levels(score=IMP(reference="open_lth")) == (left, round(0.3 * TOTAL))
    assert left != _levels(score="imp")[0]
    even = _levels(score=IMP(reference="open_lth"), schedule="exponential")
    assert even == _levels(score="imp"), "a schedule that is asked for comes before the score's own"


def _weights(net: nn.Module):
    return [m.weight for m in net.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]


def test_weights_that_torch_reads_without_a_call_are_masked_too():
    model = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    masks, seen, x = _masks(model), [], torch.randn(2, 3, 8)
    zeroed = copy.deepcopy(model)
    for name, w in prunable(zeroed).items():
        w.data *= masks[name]
    _score(IMP(), model, masks, lambda net, steps: seen.append(net(x)))
    assert set(masks) == {"self_attn.out_proj.weight", "linear1.weight", "linear2.weight"}
    torch.testing.assert_close(seen[0], zeroed(x))


def test_shared_weights_are_masked_in_every_layer():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    masks, seen = {"0.weight": torch.eye(4) > 0}, []
    _score(IMP(), model, masks, lambda net, steps: seen.append(net(torch.ones(1, 4))))
    torch.testing.assert_close(seen[0], prunable(model)["0.weight"].detach().diag()[None] ** 2)


def test_errors():
    with pytest.raises(ValueError, match="IMP: rewind must be at least 0, got -1"):
        IMP(-1)
    with pytest.raises(ValueError, match="IMP: reference must be 'even' or 'open_lth', got 'lth'"):
        IMP(reference="lth")
    with pytest.raises(ValueError, match=r"IMP: train must be a callable .*, got None"):
        IMP().score(_model(), [], loss=F.cross_entropy, masks=None, seed=0)
