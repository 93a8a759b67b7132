"""What "auto" takes: gram where it agrees with autograd, else the definition, with the reason."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sparseprune import ntk

from .nets import lenet, normal, pruned, ready, worst
from .test_empirical import by_hand


class Reused(nn.Module):
    """Its first weight is read again, past the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x):
        return self.second(torch.tanh(F.linear(self.first(x), self.first.weight)))


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.gain = nn.Linear(3, 2), nn.Parameter(torch.ones(2))

    def forward(self, x):
        return self.layer(x) * self.gain


class Own(nn.Linear):
    """A linear layer with a forward of its own."""

    def forward(self, x):
        return super().forward(2 * x)


class Overwritten(nn.Module):
    """Writes over what a layer has read."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x):
        h = self.first(x)
        y = self.second(h.detach())
        h.detach().mul_(2)
        return self.last(y)


class TimeFirst(nn.Module):
    """Hands its layer `[T, N, K]`."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        return self.layer(x.transpose(0, 1)).mean(0)


MODELS = {
    "first.weight": (Reused, (3,), "'first.weight' is used other than by its own layer's forward"),
    "gain": (Scaled, (3,), "'gain' belongs to a Scaled"),
    "prelu": (lambda: nn.Sequential(nn.Linear(3, 3), nn.PReLU()), (3,), "'1.weight' belongs to a PReLU"),
    "conv1d": (lambda: nn.Sequential(nn.Conv1d(3, 2, 2), nn.Flatten()), (3, 2), "'0.weight' belongs to a Conv1d"),
    "own forward": (lambda: nn.Sequential(Own(3, 2)), (3,), "'0.weight' is used other than"),
    "time first": (TimeFirst, (5, 3), "'layer.weight' does not have the examples first"),
}


def test_gram_where_it_can():
    for layout in ("masked", "csr"):
        choice = ntk.choose(pruned(ready(lenet()), 0.3, "bool", layout), normal(5, 1, 10, 10))
        assert choice.implementation == "gram" and "agrees with autograd" in choice.reason
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ntk.empirical(ready(lenet()), normal(1, 1, 10, 10))


@pytest.mark.parametrize(("make", "shape", "reason"), MODELS.values(), ids=MODELS)
def test_else_the_definition_with_the_reason(make, shape, reason):
    model, x = ready(make()), normal(4, *shape)
    choice = ntk.choose(model, x)
    assert choice.implementation == "jacobian" and reason in choice.reason
    with pytest.warns(UserWarning, match="taking the slower implementation 'jacobian'") as told:
        found = ntk.empirical(model, x, outputs="full")
    assert len(told) == 1 and reason in str(told[0].message)
    assert worst(found, by_hand(model, x)) < 1e-12
    with pytest.raises(RuntimeError, match="implementation='gram' cannot treat this model: ") as refused:
        ntk.empirical(model, x, implementation="gram")
    assert reason in str(refused.value)


def test_an_input_written_over_in_place_is_refused_by_autograd():
    for layout in ("masked", "csr"):
        model, x = pruned(ready(Overwritten()), 0.9, "bool", layout), normal(4, 3)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            ntk.empirical(model, x)


def test_a_model_that_mixes_its_examples():
    class Centred(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x):
            y = torch.tanh(self.layer(x))
            return y * y.mean(0)

    choice = ntk.choose(ready(Centred()), normal(4, 3))
    assert choice.implementation == "jacobian" and "mixes its examples" in choice.reason


def test_frozen_parameters_are_no_obstacle():
    model = ready(nn.Sequential(nn.Linear(3, 3), nn.PReLU(), nn.Linear(3, 2)))
    model[1].weight.requires_grad_(False)
    assert ntk.choose(model, normal(2, 3)).implementation == "gram"


def test_a_softmax_does_not_hide_a_reuse():
    model = nn.Sequential(ready(Reused()), nn.Softmax(1))
    assert ntk.choose(model, normal(2, 3)).implementation == "jacobian"


def test_bad_arguments_are_told():
    with pytest.raises(ValueError, match="parameters must be one of 'kept', 'all', got 'every'"):
        ntk.choose(ready(lenet()), normal(2, 1, 10, 10), parameters="every")
    with pytest.raises(ValueError, match="csr layout"):
        ntk.choose(pruned(ready(lenet()), 0.3, "bool", "csr"), normal(2, 1, 10, 10), parameters="all")


def test_a_model_without_parameters_that_count_is_refused():
    frozen = nn.Linear(3, 2).requires_grad_(False)
    with pytest.raises(ValueError, match="must have parameters that require grad and count, got none"):
        ntk.choose(frozen, torch.ones(2, 3))
