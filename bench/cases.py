"""The shapes that benches measure and tests check: one registry."""

from __future__ import annotations

from typing import Any, NamedTuple


class Linear(NamedTuple):
    """A weight `[outputs, inputs]` and a batch."""

    outputs: int
    inputs: int
    batch: int

    def __str__(self) -> str:
        return f"W {self.outputs}x{self.inputs}, batch {self.batch}"


class Conv(NamedTuple):
    """A weight `[filters, channels, kernel, kernel]` that keeps the size but for its stride; square images."""

    channels: int
    filters: int
    side: int
    kernel: int = 3
    stride: int = 1
    batch: int = 64

    @property
    def padding(self) -> int:
        return self.kernel // 2

    def __str__(self) -> str:
        stride = f", stride {self.stride}" if self.stride > 1 else ""
        return (
            f"{self.channels} -> {self.filters}, {self.kernel}x{self.kernel}{stride}, {self.side}x{self.side} images, "
            f"batch {self.batch}"
        )


class Ntk(NamedTuple):
    """A tangent kernel: a network of `models.build`, its options, and a number of examples."""

    model: str
    options: dict[str, Any]
    examples: int

    def __str__(self) -> str:
        sizes = (*self.options["input_shape"], *self.options.get("hidden", ()), self.options["classes"])
        return f"{self.model} {'-'.join(map(str, sizes))}, N = {self.examples}"


LINEAR = tuple(Linear(1024, 1024, batch) for batch in (128, 1, 16, 512))
# The convolutions of the CIFAR nets, one of each shape.
RESNET20 = (
    Conv(16, 16, 32),
    Conv(16, 32, 32, stride=2),
    Conv(32, 32, 16),
    Conv(32, 64, 16, stride=2),
    Conv(64, 64, 8),
)
VGG19 = (
    Conv(64, 64, 32),
    Conv(64, 128, 16),
    Conv(128, 128, 16),
    Conv(128, 256, 8),
    Conv(256, 256, 8),
    Conv(256, 512, 4),
    Conv(512, 512, 4),
    Conv(512, 512, 2),
)
MLP = (784, 1024, 1024, 10)

NTK_MLP = {"input_shape": (784,), "hidden": (1024, 1024)}
NTK = (
    *(Ntk("mlp", {**NTK_MLP, "classes": 1}, n) for n in (64, 128, 256)),
    *(Ntk("mlp", {**NTK_MLP, "classes": 10}, n) for n in (32, 64, 128, 256)),
    Ntk("resnet20", {"input_shape": (3, 32, 32), "classes": 10}, 32),
)
NTK_DENSITIES = (0.5, 0.1, 0.02)

LINEAR_DENSITIES = (0.5, 0.2, 0.1, 0.05, 0.02)
CONV_DENSITIES = (0.1, 0.05, 0.02)

GPU_LINEAR = (Linear(1024, 1024, 128), Linear(4096, 4096, 256), Linear(4096, 4096, 4096))
GPU_CONV = (Conv(64, 64, 32, batch=256), Conv(256, 256, 8, batch=256))
GPU_BLOCKS = ((Linear(4096, 4096, 4096), 64), (Linear(8192, 8192, 4096), 128))  # and the size of a block
GPU_NTK = (((1024, 4096, 4096, 10), 1000, 0.05), (MLP, 128, 0.1))  # widths, examples, density
