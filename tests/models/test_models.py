"""The nets of the papers: their sizes, their initialization, their seeds, and one real training."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from sparseprune.models import MODELS, build
from sparseprune.nn import densify, sparsify


def weights(model: nn.Module) -> int:
    """Prunable weights: those of Linear and Conv2d."""
    return sum(m.weight.numel() for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d)))


SIZES = [
    ("vgg19", {}, 20_024_000),
    ("vgg19", {"classes": 100}, 20_070_080),
    ("resnet20", {}, 270_896),
    ("resnet20", {"classes": 100}, 276_656),
    ("resnet20", {"width": 32}, 1_081_440),
    ("resnet20", {"width": 32, "classes": 100}, 1_092_960),
    ("wide-resnet", {}, 1_081_440),
    ("wide-resnet", {"depth": 32, "width": 16}, 270_896 + 2 * 2 * 9 * (16**2 + 32**2 + 64**2)),
    ("resnet18", {}, 11_261_632),
    ("lenet-300-100", {}, 784 * 300 + 300 * 100 + 100 * 10),
    ("mlp", {"hidden": (7, 5), "input_shape": (6,), "classes": 3}, 6 * 7 + 7 * 5 + 5 * 3),
    ("mlp", {"hidden": ()}, 640),
    ("small-conv", {}, 23_824),
    ("small-conv", {"width": 8}, 6_152),
]


@pytest.mark.parametrize(("name", "options", "expected"), SIZES)
def test_prunable_weights(name, options, expected):
    with torch.device("meta"):
        model = MODELS[name](**options)
    assert weights(model) == expected


SMALL = {"vgg19": (3, 16, 16), "resnet18": (3, 16, 16), "resnet20": (3, 16, 16), "wide-resnet": (3, 8, 8)}


@pytest.mark.parametrize("name", MODELS)
def test_shapes(name):
    shape = SMALL.get(name)
    model = build(name, classes=5, input_shape=shape, seed=0)
    assert model.training and (shape is None or model.input_shape == shape)
    assert model(torch.randn(2, *model.input_shape)).shape == (2, 5)
    assert copy.deepcopy(model).input_shape == model.input_shape


def test_defaults():
    shapes = {name: MODELS[name]().input_shape for name in ("mlp", "lenet-300-100", "small-conv", "resnet20")}
    assert shapes == {
        "mlp": (1, 8, 8),
        "lenet-300-100": (1, 28, 28),
        "small-conv": (1, 8, 8),
        "resnet20": (3, 32, 32),
    }
    assert build("resnet20", seed=0, input_shape=[1, 8, 8]).input_shape == (1, 8, 8)
    assert build("small-conv", seed=0, input_shape=(3, 1, 5)).eval()(torch.zeros(1, 3, 1, 5)).shape == (1, 10)
    assert build("vgg19", seed=0, input_shape=(1, 8, 8)).eval()(torch.zeros(1, 1, 8, 8)).shape == (1, 10)


def test_vgg19_halves_four_times_and_averages_the_rest():
    pools = [m for m in MODELS["vgg19"]().modules() if isinstance(m, nn.MaxPool2d)]
    convs = [m.out_channels for m in MODELS["vgg19"]().modules() if isinstance(m, nn.Conv2d)]
    assert len(pools) == 4 and convs == [64] * 2 + [128] * 2 + [256] * 4 + [512] * 8


def test_resnet_shortcuts_are_one_by_one_convolutions_where_shapes_change():
    shortcuts = [m.shortcut for m in MODELS["resnet20"]() if hasattr(m, "shortcut")]
    assert len(shortcuts) == 9
    changing = [s[0] for s in shortcuts if not isinstance(s, nn.Identity)]
    assert [(s.in_channels, s.out_channels, s.kernel_size, s.stride) for s in changing] == [
        (16, 32, (1, 1), (2, 2)),
        (32, 64, (1, 1), (2, 2)),
    ]


@pytest.mark.parametrize("name", ["resnet20", "small-conv", "lenet-300-100"])
def test_initialization(name):
    """w ~ N(0, 2/fan_in): over the N weights, sum(w^2 fan_in / 2) has mean N and variance 2 N."""
    model = build(name, seed=0)
    total = 0.0
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            total += float(module.weight.detach().double().square().sum()) * module.weight[0].numel() / 2
            assert module.bias is None or module.bias.eq(0).all()
        elif isinstance(module, nn.BatchNorm2d):
            assert module.weight.eq(1).all() and module.bias.eq(0).all()
            assert module.running_mean.eq(0).all() and module.running_var.eq(1).all()
    count = weights(model)
    assert abs(total - count) < 5 * math.sqrt(2 * count)


def test_the_seed_makes_the_weights_and_leaves_the_global_generator():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = build("small-conv", seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second, other = build("small-conv", seed=3), build("small-conv", seed=4)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first[0][0].weight, other[0][0].weight)


def test_without_a_seed_the_global_generator_makes_the_weights():
    torch.manual_seed(5)
    first, second = build("mlp"), build("mlp")
    torch.manual_seed(5)
    again = build("mlp")
    assert torch.equal(first[1].weight, again[1].weight)
    assert not torch.equal(first[1].weight, second[1].weight)


BAD = [
    ("vgg16", {}, "build: name must be one of mlp, lenet-300-100, .*, got 'vgg16'"),
    ("mlp", {"classes": 0}, "build: classes must be at least 1, got 0"),
    ("mlp", {"input_shape": ()}, r"build: input_shape must hold positive sizes, got \(\)"),
    ("mlp", {"input_shape": (0, 3)}, r"build: input_shape must hold positive sizes, got \(0, 3\)"),
    ("mlp", {"hidden": (8, 0)}, r"mlp: hidden must hold positive sizes, got \(8, 0\)"),
    ("small-conv", {"input_shape": (64,)}, r"small-conv: input_shape must be \(channels, height, width\), got \(64,\)"),
    ("vgg19", {"input_shape": (32, 32)}, r"vgg19: input_shape must be"),
    ("resnet20", {"input_shape": (32, 32)}, r"resnet20: input_shape must be"),
    ("resnet20", {"width": 0}, r"resnet20: width must be at least 1, got 0"),
    ("wide-resnet", {"depth": 28}, r"wide-resnet: depth must be 6 n \+ 2 .*, got 28"),
    ("wide-resnet", {"depth": 2}, r"wide-resnet: depth must be 6 n \+ 2 .*, got 2"),
]


@pytest.mark.parametrize(("name", "options", "message"), BAD)
def test_bad_input_is_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        build(name, **options)


def test_an_unknown_option_is_refused():
    with pytest.raises(TypeError, match="widht"):
        build("resnet20", widht=32)


@pytest.mark.parametrize("name", ["mlp", "small-conv", "resnet20"])
def test_per_example_gradients(name):
    model = build(name, seed=0, input_shape=(1, 8, 8)).eval().double()
    parameters = {key: p.detach() for key, p in model.named_parameters()}
    x, y = torch.randn(3, 1, 8, 8, dtype=torch.float64), torch.tensor([1, 2, 3])

    def loss(parameters, x, y):
        return F.cross_entropy(functional_call(model, parameters, (x[None],)), y[None])

    each = vmap(grad(loss), (None, 0, 0))(parameters, x, y)
    F.cross_entropy(model(x), y).backward()
    for key, p in model.named_parameters():
        torch.testing.assert_close(each[key].mean(0), p.grad)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_becomes_sparse_and_dense_again(name):
    model = build(name, seed=0, input_shape=SMALL.get(name)).eval()
    layers = {f"{k}.weight": m for k, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))}
    generator = torch.Generator().manual_seed(0)
    masks = {key: torch.rand(m.weight.shape, generator=generator) < 0.3 for key, m in layers.items()}
    x = torch.randn(1, *model.input_shape)
    large = sum(mask.numel() for mask in masks.values()) > 10**6  # sorting the kept weights of these takes seconds
    sparse = sparsify(model, masks, layout="masked" if large else "csr")(x)
    assert all(m.density > 0.2 for m in layers.values()) and sparse.isfinite().all()
    torch.testing.assert_close(densify(model)(x), sparse, rtol=1e-5, atol=1e-5 * sparse.abs().max().item())


def test_small_conv_learns_the_digits():
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(digits.target)
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(images), generator=generator)
    train, test = order[:1400], order[1400:]
    mean, std = images[train].mean(), images[train].std()
    images = (images - mean) / std
    model = build("small-conv", seed=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 6)
    for _ in range(6):
        for indices in train[torch.randperm(1400, generator=generator)].split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(images[indices]), labels[indices]).backward()
            optimizer.step()
        scheduler.step()
    accuracy = (model.eval()(images[test]).argmax(1) == labels[test]).float().mean()
    assert accuracy > 0.98
