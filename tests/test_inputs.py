"""Synthetic inputs follow their laws; what cannot be made is an error that says what to pass."""

import math
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from sparseprune import inputs

SHAPE = (3, 8, 8)


@dataclass(frozen=True)
class Needs:
    needs: str
    name: ClassVar[str] = "needy"


def _model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(4, 7))


def _source(model, needs, **given):
    arguments = {"data": None, "inputs": None, "input_shape": None, "seed": lambda t: 10 + t} | given
    return inputs.source(model, Needs(needs), **arguments)


def test_ones_is_one_image_of_ones():
    assert torch.equal(inputs.synthetic("ones", SHAPE, seed=0), torch.ones(1, *SHAPE))


def test_normal_has_the_moments_asked_for():
    mean, std = torch.tensor([1.0, -2.0, 0.0]).view(3, 1, 1), torch.tensor([0.5, 2.0, 1.0]).view(3, 1, 1)
    x = inputs.synthetic("normal", SHAPE, seed=1, moments=(mean, std))
    assert x.shape == (256, *SHAPE)
    n = 256 * 64  # per channel; six standard errors
    assert ((x.mean((0, 2, 3)) - mean.view(3)).abs() < 6 * std.view(3) / math.sqrt(n)).all()
    assert ((x.std((0, 2, 3)) / std.view(3) - 1).abs() < 6 / math.sqrt(2 * n)).all()


def test_chi_entries_are_root_mean_squares_of_128_normals():
    x = inputs.synthetic("chi", (64, 64), seed=2)
    assert x.shape == (1, 64, 64) and (x > 0).all()
    # n x^2 is chi-square with n = 128 degrees of freedom: mean n, variance 2n
    assert abs(float(x.square().mean()) - 1) < 6 * math.sqrt(2 / 128 / 4096)
    assert abs(float(x.square().var()) / (2 / 128) - 1) < 0.2


def test_sparse_has_exactly_one_image_at_each_location():
    x = inputs.synthetic("sparse", SHAPE, seed=3, moments=(torch.tensor(5.0), torch.tensor(0.1)))
    assert x.shape == (256, *SHAPE)
    assert ((x != 0).sum(0) == 1).all()
    assert (x[x != 0] - 5).abs().max() < 0.6
    images = (x != 0).flatten(1).sum(1)
    assert len(images.unique()) > 1 and images.max() < 12  # spread over the batch, not in one image


@pytest.mark.parametrize("kind", ["normal", "chi", "sparse"])
def test_draws_are_functions_of_the_seed_alone(kind):
    state = torch.random.get_rng_state()
    assert torch.equal(inputs.synthetic(kind, SHAPE, seed=4), inputs.synthetic(kind, SHAPE, seed=4))
    assert not torch.equal(inputs.synthetic(kind, SHAPE, seed=4), inputs.synthetic(kind, SHAPE, seed=5))
    assert torch.equal(state, torch.random.get_rng_state())


def test_moments_are_those_of_all_samples_per_channel():
    x = torch.randn(10, *SHAPE) * 3 + 1
    mean, std = inputs.moments_of([(x[:7], None), (x[7:], None)])
    torch.testing.assert_close(mean.view(3), x.mean((0, 2, 3)))
    torch.testing.assert_close(std.view(3), x.std((0, 2, 3), correction=0))
    flat_mean, flat_std = inputs.moments_of([(x.flatten(1), None)])
    torch.testing.assert_close(flat_mean, x.mean())
    torch.testing.assert_close(flat_std, x.std(correction=0))


def test_shape_comes_from_data_then_argument_then_model_then_a_first_linear():
    model = _model()
    assert inputs.sample_shape(model, data=[(torch.zeros(2, 5, 5), None)], input_shape=SHAPE) == (5, 5)
    assert inputs.sample_shape(model, input_shape=SHAPE) == SHAPE
    model.input_shape = (3, 9, 9)  # pyright: ignore[reportAttributeAccessIssue]
    assert inputs.sample_shape(model) == (3, 9, 9)
    assert inputs.sample_shape(nn.Sequential(nn.Flatten(), nn.Linear(6, 2))) == (6,)


def test_no_way_to_tell_the_shape_says_what_to_pass():
    with pytest.raises(ValueError, match=r"pass input_shape=\(C, H, W\), inputs=<tensor> or data=<batches>"):
        inputs.sample_shape(_model())


def test_labels_are_uniform_over_the_classes_and_leave_the_model_alone():
    model = _model().train()
    model[0].eval()
    modes = [m.training for m in model.modules()]
    y = inputs.random_labels(model, torch.zeros(700, 3, 4, 4), seed=0)
    counts = y.bincount(minlength=7)
    assert len(counts) == 7 and ((counts - 100).float().square() / 100).sum() < 40  # chi-square, 6 degrees: p < 1e-6
    assert [m.training for m in model.modules()] == modes


def test_labels_of_a_model_without_classes_are_an_error():
    with pytest.raises(ValueError, match=r"prune: data must be given where the output is not \[B, classes"):
        inputs.random_labels(nn.Flatten(0), torch.zeros(2, 3), seed=0)


@pytest.mark.parametrize("shape", [8, (3, -1, 8), (3, 0, 8), (3, 8.0, 8), "3"])
def test_an_input_shape_that_is_none_is_an_error(shape):
    with pytest.raises(ValueError, match=r"prune: input_shape must be positive integers such as \(3, 32, 32\), got"):
        inputs.sample_shape(_model(), input_shape=shape)


@pytest.mark.parametrize("empty", [torch.ones(0, *SHAPE), torch.tensor(1.0)])
def test_inputs_without_a_sample_are_an_error(empty):
    with pytest.raises(ValueError, match="prune: inputs must hold at least one sample, got shape"):
        _source(_model(), "inputs", inputs=empty)


def test_source_prefers_data_then_inputs_and_draws_chi_anew_each_iteration():
    model, data = _model(), [(torch.randn(2, *SHAPE), torch.tensor([0, 1]))]
    real = list(_source(model, "targets", data=data)(1))
    assert torch.equal(real[0][0], data[0][0]) and torch.equal(real[0][1], data[0][1])
    chi = _source(model, "inputs", inputs="chi", input_shape=SHAPE)
    assert not torch.equal(chi(1)[0][0], chi(2)[0][0])
    normal = _source(model, "inputs", inputs="normal", input_shape=SHAPE)
    assert torch.equal(normal(1)[0][0], normal(2)[0][0])
    assert normal(1)[0][1] is None


def test_source_gives_random_labels_where_targets_are_needed():
    x = torch.randn(5, *SHAPE)
    ((inputs_, labels),) = _source(_model(), "targets", inputs=x)(1)
    assert torch.equal(inputs_, x) and labels.shape == (5,) and labels.max() < 7


def test_source_takes_the_moments_of_the_data():
    data = [(torch.full((4, *SHAPE), 3.0), torch.zeros(4, dtype=torch.long))]
    ((x, _),) = _source(_model(), "targets", data=data, inputs="sparse")(1)
    assert (x[x != 0] == 3).all()


def test_source_without_anything_for_a_score_that_needs_targets_is_an_error():
    with pytest.raises(ValueError, match="prune: data or inputs must be given for score 'needy', got neither"):
        _source(_model(), "targets", input_shape=SHAPE)


def test_unknown_inputs_are_an_error_even_where_not_needed():
    for needs in ("nothing", "inputs"):
        with pytest.raises(
            ValueError, match="prune: inputs must be one of 'ones', 'normal', 'chi', 'sparse' or a tensor"
        ):
            _source(_model(), needs, inputs="zeros")


@pytest.mark.parametrize(
    "data, message",
    [
        ([], "empty loader"),
        ((pair for pair in [(torch.ones(1), None)]), "iterable twice"),
        ([torch.ones(2)], r"batches \(input, target\), got Tensor"),
        ([(torch.ones(0, 3), torch.ones(0))], "at least one sample"),
        (torch.utils.data.TensorDataset(torch.ones(2, 3)), "iterable of batches such as a DataLoader, got TensorDa"),
        (5, "iterable of batches such as a DataLoader, got int"),
    ],
)
def test_bad_data_is_one_clear_error(data, message):
    with pytest.raises(ValueError, match=f"prune: data must .*{message}"):
        inputs.check_data(data)
