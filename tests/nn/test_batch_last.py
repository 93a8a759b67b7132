"""Batch norm and pooling keep batch-last strides without a copy and give torch's numbers; a chain transposes once."""

import copy

import pytest
import torch
from torch import nn

import sparseprune.nn as sparse_nn
from sparseprune import models, ops
from sparseprune.nn import densify, sparsify
from sparseprune.nn.batch_last import is_batch_last

PAIRS = [
    (nn.BatchNorm2d, sparse_nn.BatchNorm2d, {"num_features": 3}),
    (nn.BatchNorm2d, sparse_nn.BatchNorm2d, {"num_features": 3, "momentum": None, "affine": False}),
    (nn.BatchNorm2d, sparse_nn.BatchNorm2d, {"num_features": 3, "track_running_stats": False}),
    (nn.MaxPool2d, sparse_nn.MaxPool2d, {"kernel_size": 2}),
    (nn.MaxPool2d, sparse_nn.MaxPool2d, {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
    (nn.MaxPool2d, sparse_nn.MaxPool2d, {"kernel_size": (2, 3), "dilation": (2, 1), "return_indices": True}),
    (nn.AvgPool2d, sparse_nn.AvgPool2d, {"kernel_size": 2}),
    (nn.AvgPool2d, sparse_nn.AvgPool2d, {"kernel_size": 3, "padding": 1, "count_include_pad": False}),
    (nn.AdaptiveAvgPool2d, sparse_nn.AdaptiveAvgPool2d, {"output_size": 1}),
    (nn.AdaptiveAvgPool2d, sparse_nn.AdaptiveAvgPool2d, {"output_size": (2, 3)}),
]


def images(batch: int, channels: int = 3, height: int = 7, width: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(channels, height, width, batch, dtype=torch.float64, generator=generator).permute(3, 0, 1, 2)


def both(pair, x):
    """The outputs of torch's layer on a contiguous input and of ours on a batch-last one, each with its input."""
    original, twin, options = pair
    ours = twin(**options).double()
    theirs = original(**options).double()
    inputs = x.contiguous().detach().requires_grad_(), x.detach().requires_grad_()
    return (theirs, inputs[0], theirs(inputs[0])), (ours, inputs[1], ours(inputs[1]))


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("pair", PAIRS)
def test_the_same_numbers_gradients_and_statistics(pair, batch):
    (theirs, x, expected), (ours, last, got) = both(pair, images(batch))
    assert isinstance(ours, pair[0])
    if isinstance(got, tuple):
        assert torch.equal(got[1], expected[1])
        got, expected = got[0], expected[0]
    torch.testing.assert_close(got, expected)
    assert batch == 1 or (is_batch_last(got) and is_batch_last(last))
    (from_got,) = torch.autograd.grad(got.square().sum(), last)
    torch.testing.assert_close(from_got, torch.autograd.grad(expected.square().sum(), x)[0])
    for name, buffer in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], buffer)


@pytest.mark.parametrize("pair", PAIRS)
def test_other_strides_are_left_to_torch(pair):
    for x in (images(4).contiguous(), images(4).contiguous(memory_format=torch.channels_last)):
        (_, _, expected), (_, _, got) = both(pair, x)
        expected, got = (y if isinstance(y, torch.Tensor) else y[0] for y in (expected, got))
        torch.testing.assert_close(got, expected)


def test_batch_norm_in_eval_mode_and_errors():
    ours, theirs = sparse_nn.BatchNorm2d(3).double(), nn.BatchNorm2d(3).double()
    for norm in (ours, theirs):
        norm.running_mean.fill_(0.5)
        norm.eval()
    torch.testing.assert_close(ours(images(4)), theirs(images(4)))
    with pytest.raises(ValueError, match="expected 4D input"):
        ours(torch.zeros(3, 3, dtype=torch.float64))
    unbatched = torch.randn(3, 8, 8)
    assert torch.equal(sparse_nn.MaxPool2d(2)(unbatched), nn.MaxPool2d(2)(unbatched))


def chain() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout2d(0.2),
        nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3),
    )  # fmt: skip


def masks_for(model: nn.Module, density: float = 0.5) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {n: torch.rand(p.shape, generator=generator) < density for n, p in model.named_parameters() if p.ndim > 1}


def test_a_chain_of_layers_transposes_its_input_and_nothing_else():
    model = chain()
    sparsify(model, masks_for(model), layout="csr")
    x = torch.randn(9, 2, 8, 8)
    before = ops.transposes()
    y = model(x)
    assert ops.transposes() - before == 1 and y.stride() == (1, 9)
    y.square().sum().backward()
    assert ops.transposes() - before == 1, "gradients come back batch-last"
    before = ops.transposes()
    model(x.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2))
    assert ops.transposes() == before


@pytest.mark.parametrize(("batch", "side"), [(3, 16), (12, 8)])
def test_resnet20_transposes_once_forward_and_not_backward(batch, side):
    """Few images lie batch first up to the last layer, many small ones batch last from the first on."""
    model = models.build("resnet20", seed=0)
    sparsify(model, masks_for(model, 0.05), layout="csr")
    x, target = torch.randn(batch, 3, side, side), torch.arange(batch) % 10
    before = ops.transposes()
    loss = torch.nn.functional.cross_entropy(model(x), target)
    assert ops.transposes() - before == 1
    loss.backward()
    assert ops.transposes() - before <= 2, "the loss's own gradient is batch-first"


@pytest.mark.parametrize(("batch", "width", "by_rows"), [(7, 5, True), (8, 7, True), (8, 6, False)])
def test_convolutions_compute_long_rows_and_few_images_where_they_lie(batch, width, by_rows):
    model = sparsify(nn.Sequential(nn.Conv2d(2, 3, 3, padding=1)), {"0.weight": torch.ones(3, 2, 3, 3)}, layout="csr")
    x = torch.randn(batch, 2, 4, width, requires_grad=True)
    before = ops.transposes()
    y = model(x)
    torch.autograd.grad(y, x, torch.ones_like(y))
    assert y.is_contiguous() == by_rows and ops.transposes() - before == (not by_rows)
    last = model(x.detach().permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2))
    assert is_batch_last(last)
    torch.testing.assert_close(y.detach(), last)


def test_sparsify_swaps_the_classes_only_around_csr_convolutions_and_back():
    model, masks = chain(), masks_for(chain())
    modules, state = list(model), copy.deepcopy(model[1].state_dict())
    model[1].eval()
    sparsify(model, masks, layout="masked")
    assert type(model[1]) is nn.BatchNorm2d
    sparsify(model, {"4.weight": masks["4.weight"]}, layout="csr")
    assert type(model[1]) is sparse_nn.BatchNorm2d and type(model[3]) is sparse_nn.MaxPool2d
    assert type(model[8]) is sparse_nn.AvgPool2d and not model[1].training
    assert all(a is b for a, b in zip(model, modules, strict=True))
    assert all(torch.equal(model[1].state_dict()[name], value) for name, value in state.items())
    sparsify(model, {"4.weight": masks["4.weight"]}, layout="masked")
    assert type(model[1]) is nn.BatchNorm2d and type(model[3]) is nn.MaxPool2d
    densify(sparsify(model, masks, layout="csr"))
    assert [type(m) for m in model] == [type(m) for m in chain()]
    linear = nn.Sequential(nn.Linear(4, 4), nn.Unflatten(1, (1, 2, 2)), nn.BatchNorm2d(1))
    assert type(sparsify(linear, {"0.weight": torch.eye(4)}, layout="csr")[2]) is nn.BatchNorm2d


def test_what_is_not_torchs_own_is_left_alone():
    class Norm(nn.BatchNorm2d):
        pass

    model = nn.Sequential(nn.Conv2d(2, 3, 3), Norm(3), nn.SyncBatchNorm(3), nn.MaxPool2d(2))
    model[3].forward = lambda x: x
    sparsify(model, {"0.weight": torch.ones(3, 2, 3, 3)}, layout="csr")
    assert [type(m) for m in model[1:]] == [Norm, nn.SyncBatchNorm, nn.MaxPool2d]
