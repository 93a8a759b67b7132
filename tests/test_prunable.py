"""Which parameters can be pruned, in which order, under which names."""

import pytest
from torch import nn

from sparseprune.prunable import biases, layers, prunable


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 4)
        self.body = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(4, 4))
        self.body[2].weight = self.head.weight


class OwnLinear(nn.Linear):
    pass


def test_weights_of_linear_and_conv_in_parameter_order():
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Conv1d(1, 1, 1), OwnLinear(3, 2), nn.Embedding(2, 2)
    )
    assert list(prunable(model)) == ["0.weight", "3.weight"]
    assert prunable(model)["3.weight"] is model[3].weight


def test_biases_are_those_of_the_prunable_layers():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(3, 2, bias=False), OwnLinear(3, 2))
    assert list(biases(model)) == ["0.bias", "3.bias"]
    assert list(biases(model, ["3"])) == ["3.bias"]
    assert list(biases(Tied())) == ["head.bias", "body.0.bias", "body.2.bias"]


def test_a_lone_layer_is_a_model():
    assert list(prunable(nn.Linear(2, 3))) == ["weight"]


def test_a_shared_weight_counts_once_and_knows_both_its_layers():
    model = Tied()
    assert list(prunable(model)) == ["head.weight", "body.0.weight"]
    assert layers(model)["head.weight"] == [model.head, model.body[2]]


def test_nothing_prunable_is_an_empty_dict():
    assert prunable(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3))) == {}


@pytest.mark.parametrize("entry", ["body.0", "object", "container"])
def test_modules_restrict_by_name_object_or_container(entry):
    model = Tied()
    wanted = {"body.0": ["body.0"], "object": [model.body[0]], "container": "body"}[entry]
    expected = ["head.weight", "body.0.weight"] if entry == "container" else ["body.0.weight"]
    assert list(prunable(model, wanted)) == expected


@pytest.mark.parametrize("wrong", ["tail", "body.1", nn.Linear(2, 2)])
def test_modules_that_are_not_there_or_hold_nothing_are_an_error(wrong):
    with pytest.raises(ValueError, match="prunable: modules must be parts of the model"):
        prunable(Tied(), [wrong])
