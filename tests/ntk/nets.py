"""Networks for the tangent kernel's tests, sparse in every way, and the comparison with the definition."""

import torch
from torch import nn

from sparseprune import ntk
from sparseprune.nn import sparsify


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def ready(model: nn.Module, seed: int = 0) -> nn.Module:
    """In float64 and eval mode, every parameter and buffer at random: norms must show what they do."""
    generator = torch.Generator().manual_seed(seed)
    model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, max(1, parameter[0].numel()) ** -0.5, generator=generator)
        for name, buffer in model.named_buffers():
            if "running" in name:
                buffer.uniform_(0.5, 2, generator=generator)
    return model


def pruned(model: nn.Module, density: float, kind: str, layout: str, seed: int = 1) -> nn.Module:
    """Masks of a kind, "bool" or "float" (kept in the forward), on every linear layer and convolution."""
    generator = torch.Generator().manual_seed(seed)
    masks = {}
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            drawn = torch.rand(module.weight.shape, generator=generator)
            kept = drawn < density
            masks[f"{name}.weight".lstrip(".")] = kept if kind == "bool" else kept * (1 + drawn).double() / density
    return sparsify(model, masks, layout=layout, scale="keep")


def lenet() -> nn.Sequential:
    """LeNet-5's shape on 10 x 10 images: tanh, average pools, two convolutions, three linear layers."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(4, 6, 4), nn.Tanh(), nn.Flatten(),
        nn.Linear(24, 12), nn.Tanh(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 3),
    )  # fmt: skip


def vgg() -> nn.Sequential:
    """Two of VGG's blocks, the second on 2 x 2 images."""

    def block(channels: int, filters: int) -> list[nn.Module]:
        return [nn.Conv2d(channels, filters, 3, padding=1, bias=False), nn.BatchNorm2d(filters), nn.ReLU()]

    layers = [*block(3, 4), *block(4, 4), nn.MaxPool2d(2), *block(4, 8), *block(8, 8)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))


def worst(found: torch.Tensor, expected: torch.Tensor) -> float:
    assert found.shape == expected.shape and expected.abs().max() > 0
    return float((found - expected).abs().max() / expected.abs().max())


def assert_agrees(model: nn.Module, x1: torch.Tensor, x2: torch.Tensor | None = None, **options) -> torch.Tensor:
    """gram equals jacobian; both are returned by the same call but for the implementation."""
    found = ntk.empirical(model, x1, x2, implementation="gram", **options)
    options.pop("chunk", None)
    assert worst(found, ntk.empirical(model, x1, x2, implementation="jacobian", **options)) < 1e-10
    return found
