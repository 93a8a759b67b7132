"""Tiny-ImageNet: 200 folders of JPEG files, 64 x 64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ._files import find
from .dataset import Dataset

_SIDE = 64


def load_tiny_imagenet(root: Path) -> Dataset:
    """Load `tiny-imagenet-200` (wnids.txt, train/, val/) from `root`; the validation set serves as the test set.

    Cost: decodes every file (110,000 in the full set) into uint8, 12 kB each.
    """
    layouts = ("tiny-imagenet-200/wnids.txt", "wnids.txt")
    folder = find("tiny-imagenet", (root / "tiny-imagenet", root), layouts).parent
    labels = {wnid: index for index, wnid in enumerate((folder / "wnids.txt").read_text().split())}
    train = [(path, label) for wnid, label in labels.items() for path in _jpegs(folder / "train" / wnid)]
    return Dataset.build("tiny-imagenet", _decode(train), _decode(_validation(folder, labels)), classes=len(labels))


def _jpegs(folder: Path) -> list[Path]:
    """Return the class's pictures, in the archive's `images/` or directly in its folder."""
    inner = folder / "images"
    return sorted((inner if inner.is_dir() else find("tiny-imagenet", [folder.parent], [folder.name])).glob("*.JPEG"))


def _validation(folder: Path, labels: dict[str, int]) -> list[tuple[Path, int]]:
    """Return (file, label) from val_annotations.txt: name, class, and a box on each line, separated by tabs."""
    listing = find("tiny-imagenet", [folder / "val"], ["val_annotations.txt"])
    pairs = []
    for line in listing.read_text().splitlines():
        fields = line.split("\t")
        if len(fields) < 2 or fields[1] not in labels:
            raise ValueError(f"load: {listing} must hold lines 'file<TAB>class', got {line!r}")
        pairs.append((find("tiny-imagenet", [folder / "val" / "images"], [fields[0]]), labels[fields[1]]))
    return pairs


def _decode(pairs: list[tuple[Path, int]]) -> tuple[Tensor, Tensor]:
    from PIL import Image

    pixels = np.empty((len(pairs), 3, _SIDE, _SIDE), np.uint8)
    for index, (path, _) in enumerate(pairs):
        try:
            with Image.open(path) as picture:
                array = np.asarray(picture.convert("RGB"))  # a few files are greyscale
        except OSError as error:
            raise ValueError(f"load: {path} is not a readable JPEG file: {error}") from None
        if array.shape != (_SIDE, _SIDE, 3):
            raise ValueError(f"load: {path} must be {_SIDE} x {_SIDE}, got {array.shape[1]} x {array.shape[0]}")
        pixels[index] = array.transpose(2, 0, 1)
    return torch.from_numpy(pixels), torch.tensor([label for _, label in pairs], dtype=torch.int64)
