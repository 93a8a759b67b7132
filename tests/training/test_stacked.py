"""Nets trained at once: each as alone, to rounding; checkpoints; what cannot be stacked."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from sparseprune import models
from sparseprune.data import load
from sparseprune.masks import Masks
from sparseprune.nn import sparsify
from sparseprune.training import gain, train, train_stacked

from ..one_thread import one_thread

__all__ = ["one_thread"]  # for every test here


@pytest.fixture(scope="module")
def digits():
    whole = load("digits")
    few = {f"train_{what}": getattr(whole, f"train_{what}")[:300] for what in ("pixels", "targets")}
    return replace(whole, **few, test_pixels=whole.test_pixels[:100], test_targets=whole.test_targets[:100])


def nets(name, count=3, scale="fold"):
    """Of different weights, masks and batch norm statistics to come."""
    found = [models.build(name, seed=seed) for seed in range(count)]
    for seed, net in enumerate(found):
        generator = torch.Generator().manual_seed(seed)
        masks = {n: torch.rand(p.shape, generator=generator) < 0.4 for n, p in net.named_parameters() if p.ndim > 1}
        if scale == "keep":
            masks = {n: mask * 1.5 for n, mask in masks.items()}
        sparsify(net, Masks(masks), layout="masked", scale=scale)
    return found


@pytest.mark.parametrize(("name", "scale"), [("mlp", "fold"), ("mlp", "keep"), ("small-conv", "fold")])
def test_each_net_is_trained_as_alone(digits, name, scale):
    recipe = {"epochs": 2, "batch_size": 64, "lr": 0.05, "augment": True}
    alone, stacked = nets(name, scale=scale), nets(name, scale=scale)
    expected = [train(net, digits, seed=seed, **recipe) for seed, net in zip((4, 5, 6), alone, strict=True)]
    found = train_stacked(stacked, digits, seeds=(4, 5, 6), **recipe)
    for one, other in zip(expected, found, strict=True):
        assert other.losses == pytest.approx(one.losses, rel=1e-4) and other.step_ms > 0 and other.peak_bytes is None
    for one, other in zip(alone, stacked, strict=True):
        for key, value in one.state_dict().items():
            torch.testing.assert_close(other.state_dict()[key], value, rtol=1e-3, atol=1e-4)
    assert len({history.losses for history in found}) == 3


def test_pruned_weights_stay_zero(digits):
    stacked = nets("mlp")
    train_stacked(stacked, digits, seeds=(0, 1, 2), epochs=1)
    for net in stacked:
        assert all((m.weight[~m.weight_mask] == 0).all() for m in net.modules() if hasattr(m, "weight_mask"))


def test_it_begins_at_a_step_and_counts_progress(digits):
    told = []
    train_stacked(nets("mlp"), digits, seeds=(0, 1, 2), epochs=2, start=2, progress=lambda *at: told.append(at))
    assert told == [(step, 6) for step in range(3, 7)]


def test_it_resumes_from_a_checkpoint(digits, tmp_path):
    options = {"seeds": (0, 1, 2), "epochs": 3, "batch_size": 100}
    whole = train_stacked(nets("small-conv"), digits, **options)

    def stop(done, total):
        if done == 7:
            raise KeyboardInterrupt

    path = tmp_path / "stack.pt"
    with pytest.raises(KeyboardInterrupt):
        train_stacked(nets("small-conv"), digits, **options, checkpoint=path, progress=stop)
    assert path.exists()
    told = []
    found = train_stacked(nets("small-conv"), digits, **options, checkpoint=path, progress=lambda *at: told.append(at))
    assert [history.losses for history in found] == [history.losses for history in whole] and told[0] == (7, 9)
    with pytest.raises(ValueError, match="another seeds"):
        train_stacked(nets("small-conv"), digits, **{**options, "seeds": (0, 1, 9)}, checkpoint=path)


def test_no_epoch_only_measures(digits):
    [one] = train_stacked(nets("mlp", 1), digits, seeds=(0,), epochs=0)
    assert one.losses == () and one.step_ms is None and 0 <= one.accuracy <= 1


def test_what_cannot_be_stacked_is_refused(digits):
    with pytest.raises(ValueError, match=r"seeds must be one a net, 3 \(at least 1\), got 2"):
        train_stacked(nets("mlp"), digits, seeds=(0, 1), epochs=1)
    with pytest.raises(ValueError, match="at least 1"):
        train_stacked([], digits, seeds=(), epochs=1)
    with pytest.raises(ValueError, match="models must be of one architecture"):
        train_stacked([models.build("mlp"), models.build("small-conv")], digits, seeds=(0, 1), epochs=1)
    noisy = [nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10)) for _ in range(2)]
    with pytest.raises(RuntimeError, match="random"):
        train_stacked(noisy, digits, seeds=(0, 1), epochs=1)


def test_the_gain_is_a_ratio_of_times(digits):
    assert gain(nets("mlp"), digits, batch_size=64) > 0
