"""CIFAR-10 and CIFAR-100: the python batches, read without trusting them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ._files import find
from ._unpickle import read_pickle
from .dataset import Dataset


def load_cifar10(root: Path) -> Dataset:
    """Load `cifar-10-batches-py` (data_batch_1 ... data_batch_5, test_batch) from `root`."""
    folder = _folder("cifar10", root, "cifar-10-batches-py", "data_batch_1")
    parts = [_batch(find("cifar10", [folder], [f"data_batch_{k}"]), b"labels") for k in range(1, 6)]
    train = (torch.cat([pixels for pixels, _ in parts]), torch.cat([targets for _, targets in parts]))
    test = _batch(find("cifar10", [folder], ["test_batch"]), b"labels")
    return Dataset.build("cifar10", train, test, classes=10)


def load_cifar100(root: Path) -> Dataset:
    """Load `cifar-100-python` (train, test; the 100 fine labels) from `root`."""
    folder = _folder("cifar100", root, "cifar-100-python", "train")
    train, test = (_batch(find("cifar100", [folder], [split]), b"fine_labels") for split in ("train", "test"))
    return Dataset.build("cifar100", train, test, classes=100)


def _folder(name: str, root: Path, folder: str, first: str) -> Path:
    return find(name, (root / name, root), (f"{folder}/{first}", first)).parent


def _batch(path: Path, label_key: bytes) -> tuple[Tensor, Tensor]:
    """Return pixels [N, 3, 32, 32] uint8 and targets [N] int64 of one file."""
    batch = read_pickle(path)
    if not isinstance(batch, dict):
        raise ValueError(f"load: {path} must hold a dict, got {type(batch).__name__}")
    entries = {key.encode() if isinstance(key, str) else key: value for key, value in batch.items()}
    for key in (b"data", label_key):
        if key not in entries:
            raise ValueError(f"load: {path} must have the entry {key.decode()!r}, got {sorted(map(str, entries))}")
    data = entries[b"data"]
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
        got = f"{data.dtype} {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
        raise ValueError(f"load: {path}'s data must be uint8 [N, 3072], got {got}")
    labels = entries[label_key]
    labels = labels.tolist() if isinstance(labels, np.ndarray) else labels
    if not isinstance(labels, list) or not all(isinstance(label, int) for label in labels):
        raise ValueError(f"load: {path}'s {label_key.decode()} must be a list of integers, got another content")
    return torch.tensor(data).view(-1, 3, 32, 32), torch.tensor(labels, dtype=torch.int64)
