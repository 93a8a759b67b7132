"""What every reader returns: pixels as they are stored, and the normalisation that goes with them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from .batches import Batches


@dataclass(frozen=True, eq=False)
class Dataset:
    """Hold a classification data set in its stored precision and normalise it per channel on demand.

    `x = (pixels - mean) / std`, with `mean` and `std` of the training pixels.

    Args:
        name: what `load` was asked for.
        train_pixels, test_pixels: [N, C, H, W], uint8 as in the files (a quarter of float32's memory).
        train_targets, test_targets: [N], int64 in [0, classes).
        classes: the number of classes.
        mean, std: [C], float32, in units of the stored pixels.
    """

    name: str
    train_pixels: Tensor
    train_targets: Tensor
    test_pixels: Tensor
    test_targets: Tensor
    classes: int
    mean: Tensor
    std: Tensor

    @classmethod
    def build(cls, name: str, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], classes: int) -> Dataset:
        """Check two splits (pixels [N, C, H, W], targets [N]) and measure the mean and std of the training pixels."""
        for split, (pixels, targets) in (("train", train), ("test", test)):
            _check(name, split, pixels, targets, classes, train[0].shape[1:])
        mean, std = _moments(train[0])
        return cls(name, *train, *test, classes, mean, std)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Return the shape of one example, (C, H, W)."""
        return tuple(self.train_pixels.shape[1:])

    @cached_property
    def train_inputs(self) -> Tensor:
        """Return the normalised training inputs, float32 [N, C, H, W] (4 bytes a pixel, kept once computed)."""
        return self.normalise(self.train_pixels)

    @cached_property
    def test_inputs(self) -> Tensor:
        """Return the normalised test inputs, float32 [N, C, H, W] (4 bytes a pixel, kept once computed)."""
        return self.normalise(self.test_pixels)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Return `(pixels - mean) / std` as float32, of the same shape [..., C, H, W]."""
        shape = (-1, *(1 for _ in self.input_shape[1:]))
        return (pixels.float() - self.mean.view(shape)) / self.std.view(shape)

    def to(self, device: str | torch.device) -> Dataset:
        """Return the data set with its tensors on `device`."""
        names = ("train_pixels", "train_targets", "test_pixels", "test_targets", "mean", "std")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})

    def batches(self, batch_size: int = 128, *, seed: int = 0, augment: bool = False) -> Batches:
        """Return shuffled, normalised training batches; `augment` crops and flips them first."""
        return Batches(
            self.train_pixels,
            self.train_targets,
            batch_size,
            shuffle=True,
            seed=seed,
            augment=augment,
            transform=self.normalise,
        )

    def normal(self, seed: int) -> Dataset:
        """Return random training data of the same size: pixels N(mean, std) by channel, labels uniform; no real image.

        Args:
            seed: of the generator.

        Returns:
            `Dataset` of another name, with float32 training pixels on this one's device, its test set, mean and std.

        Reference: Bar & Giryes 2023, arXiv 2305.17559, section 8, the random data of its IMP.
        """
        generator, shape = torch.Generator().manual_seed(seed), (-1, *(1 for _ in self.input_shape[1:]))
        noise = torch.randn(self.train_pixels.shape, generator=generator).to(self.mean.device)
        labels = torch.randint(self.classes, self.train_targets.shape, generator=generator)
        pixels = noise.mul_(self.std.view(shape)).add_(self.mean.view(shape))
        labels = labels.to(self.mean.device)
        return replace(self, name=f"{self.name}-normal-{seed}", train_pixels=pixels, train_targets=labels)

    def scoring_batches(self, samples: int = 256, *, batch_size: int = 128, seed: int = 0) -> Batches:
        """Return a class-balanced training subset for scoring at initialization, in micro-batches.

        Each class gives `samples / classes` examples (one more or less; all of them where it has fewer).

        Args:
            samples: how many examples; 256 is the papers' pruning batch.
            batch_size: examples in memory at once.
            seed: which examples.

        Returns:
            `Batches` of (input [B, C, H, W] float32, target [B] int64).

        Reference: Bar & Giryes 2023, section 1.5 of the supplement's recipe (batch 256); class balance as in GraSP
            (Wang et al. 2020, arXiv 2002.07376).
        """
        if samples < 1:
            raise ValueError(f"scoring_batches: samples must be at least 1, got {samples}")
        chosen = _balanced(self.train_targets.cpu(), samples, seed).to(self.train_targets.device)
        return Batches(self.train_pixels[chosen], self.train_targets[chosen], batch_size, transform=self.normalise)


def _balanced(targets: Tensor, samples: int, seed: int) -> Tensor:
    """Return `samples` indices in an order that takes one example of every class before a second of any."""
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed))
    shuffled = targets[order]
    rank = torch.empty_like(order)
    for label in shuffled.unique():
        members = (shuffled == label).nonzero().squeeze(1)
        rank[members] = torch.arange(len(members))
    return order[rank.argsort(stable=True)[:samples]]


def _moments(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the per-channel mean and std of [N, C, ...], in float64 chunks so that no full float copy is made."""
    total = torch.zeros(pixels.shape[1], dtype=torch.float64)
    square = torch.zeros_like(total)
    for chunk in pixels.split(4096):
        flat = chunk.double().transpose(0, 1).flatten(1)
        total += flat.sum(1)
        square += flat.square().sum(1)
    count = pixels[:, 0].numel()
    mean = total / count
    std = (square / count - mean.square()).clamp_min(0).sqrt()
    std[std == 0] = 1  # a constant channel carries nothing: centred, it is zero whatever the divisor
    return mean.float(), std.float()


def _check(name: str, split: str, pixels: Tensor, targets: Tensor, classes: int, shape: torch.Size) -> None:
    if len(pixels) == 0:
        raise ValueError(f"load: {name}'s {split} set is empty")
    if len(pixels) != len(targets):
        raise ValueError(f"load: {name}'s {split} set has {len(pixels)} images but {len(targets)} labels")
    if pixels.shape[1:] != shape:
        raise ValueError(f"load: {name}'s {split} images are {tuple(pixels.shape[1:])}, expected {tuple(shape)}")
    low, high = int(targets.min()), int(targets.max())
    if low < 0 or high >= classes:
        raise ValueError(f"load: {name}'s {split} labels must be in [0, {classes}), got {low if low < 0 else high}")
