"""Re-iterable batches: seeded order, seeded augmentation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

_PADDING = 4


@dataclass(frozen=True, eq=False)
class Batches:
    """Iterate over (input, target) batches; iterating twice gives the same batches, `at(epoch)` another order.

    Args:
        inputs: [N, ...].
        targets: [N], on the device of `inputs`.
        batch_size: examples a batch; the last may be smaller.
        shuffle: draw the order from (seed, epoch).
        seed, epoch: which order and which crops.
        augment: crop at random after padding by 4 zeros and flip left-right, image by image ([N, C, H, W] only).
        transform: applied to each batch of inputs last (a normalisation).

    Raises:
        ValueError: no example, unequal lengths, a batch size below 1, or augmentation of anything but images.

    Cost: one gather (and one transform) a batch; nothing is copied in advance.
    """

    inputs: Tensor
    targets: Tensor
    batch_size: int = 128
    shuffle: bool = False
    seed: int = 0
    epoch: int = 0
    augment: bool = False
    transform: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        if len(self.inputs) == 0:
            raise ValueError("Batches: inputs must hold at least one example, got none")
        if len(self.inputs) != len(self.targets):
            raise ValueError(f"Batches: targets must have length {len(self.inputs)}, got {len(self.targets)}")
        if self.batch_size < 1:
            raise ValueError(f"Batches: batch_size must be at least 1, got {self.batch_size}")
        if self.augment and self.inputs.ndim != 4:
            raise ValueError(f"Batches: augment needs inputs [N, C, H, W], got shape {list(self.inputs.shape)}")

    def __len__(self) -> int:
        return -(-len(self.inputs) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(self.seed)
        # Two integers, one generator state: the epoch's own seed is drawn from the run's.
        draw = torch.randint(2**62, (self.epoch + 1,), generator=generator)[-1]
        generator.manual_seed(int(draw))
        count = len(self.inputs)
        order = torch.randperm(count, generator=generator) if self.shuffle else torch.arange(count)
        for index in order.split(self.batch_size):
            index = index.to(self.inputs.device)
            inputs = self.inputs[index]
            if self.augment:
                inputs = crop_and_flip(inputs, generator)
            yield (self.transform(inputs) if self.transform else inputs), self.targets[index]

    def at(self, epoch: int) -> Batches:
        """Return the same data in the order (and with the crops) of `epoch`."""
        return replace(self, epoch=epoch)


def crop_and_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift each image by up to 4 pixels into zeros and flip it left-right with probability 1/2.

    Args:
        images: [B, C, H, W], any dtype.
        generator: a CPU generator; draws the shifts, then the flips.

    Returns:
        [B, C, H, W], same dtype and device.

    Cost: one padded copy and one gather.
    """
    batch, _, height, width = images.shape
    shift = torch.randint(2 * _PADDING + 1, (2, batch, 1), generator=generator)
    flip = torch.randint(2, (batch, 1), generator=generator).bool()
    rows = torch.arange(height) + shift[0]
    columns = torch.arange(width) + shift[1]
    columns = torch.where(flip, columns.flip(1), columns)
    rows, columns = rows.to(images.device), columns.to(images.device)
    which = torch.arange(batch, device=images.device)[:, None, None]
    padded = F.pad(images, (_PADDING,) * 4)
    # Advanced indices around a slice put their axes first: [B, H, W, C].
    return padded[which, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()
