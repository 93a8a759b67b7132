"""MNIST and Fashion-MNIST: the official idx files, plain or gzipped."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ._files import find
from .dataset import Dataset

_UBYTE = 0x08


def read_idx(path: Path) -> np.ndarray:
    """Read one idx file of unsigned bytes, gzipped or not.

    Args:
        path: the file; gzip is recognised by its content, not by its name.

    Returns:
        uint8 array of the shape in the header.

    Raises:
        ValueError: not an idx file of unsigned bytes, or fewer or more bytes than the header promises.
    """
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"load: {path} is a damaged or truncated gzip file ({error}); download it again") from None
    if len(content) < 4 or content[:3] != bytes((0, 0, _UBYTE)) or content[3] == 0:
        raise ValueError(f"load: {path} must be an idx file of unsigned bytes (magic 00 00 08 nn), got {content[:4]!r}")
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise ValueError(f"load: {path} is truncated inside its header ({len(content)} bytes)")
    shape = struct.unpack(f">{content[3]}I", content[4:start])
    if len(content) - start != math.prod(shape):
        raise ValueError(
            f"load: {path} must hold {math.prod(shape)} bytes after its header (shape {shape}), "
            f"got {len(content) - start}; download it again"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()


def load_mnist_like(name: str, root: Path) -> Dataset:
    """Load the four idx files of MNIST or Fashion-MNIST from any of the usual layouts below `root`."""
    torchvision = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}[name]
    folders = (root / name, root / torchvision / "raw", root / torchvision, root / "raw", root)
    splits = {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images = find(name, folders, _spellings(f"{prefix}-images", 3))
        labels = find(name, folders, _spellings(f"{prefix}-labels", 1))
        splits[split] = _split(images, labels)
    return Dataset.build(name, splits["train"], splits["test"], classes=10)


def _spellings(stem: str, dimensions: int) -> list[str]:
    stems = (f"{stem}-idx{dimensions}-ubyte", f"{stem}.idx{dimensions}-ubyte")
    return [stem + suffix for suffix in (".gz", "") for stem in stems]


def _split(images: Path, labels: Path) -> tuple[Tensor, Tensor]:
    pixels, targets = read_idx(images), read_idx(labels)
    for path, array, dimensions in ((images, pixels, 3), (labels, targets, 1)):
        if array.ndim != dimensions:
            raise ValueError(f"load: {path} must have {dimensions} dimension(s), got shape {array.shape}")
    return torch.from_numpy(pixels).unsqueeze(1), torch.from_numpy(targets).long()
