"""Readers of the standard formats, and batches over what they read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .batches import Batches
from .cifar import load_cifar10, load_cifar100
from .dataset import Dataset
from .digits import load_digits
from .idx import load_mnist_like
from .tiny_imagenet import load_tiny_imagenet

__all__ = ["Batches", "Dataset", "load", "names"]

_READERS: dict[str, Callable[[Path], Dataset]] = {
    "mnist": lambda root: load_mnist_like("mnist", root),
    "fashion-mnist": lambda root: load_mnist_like("fashion-mnist", root),
    "cifar10": load_cifar10,
    "cifar100": load_cifar100,
    "tiny-imagenet": load_tiny_imagenet,
}


def names() -> list[str]:
    """Return the names that `load` knows."""
    return ["digits", *_READERS]


def load(name: str, data_dir: str | Path | None = None) -> Dataset:
    """Load a data set by name.

    Args:
        name: "digits" (bundled with scikit-learn), or a set read from files: "mnist", "fashion-mnist" (idx, plain or
            .gz), "cifar10", "cifar100" (python batches, through a restricted unpickler), "tiny-imagenet" (folders).
        data_dir: the folder that holds the files, directly or in the folder of the set's usual name.

    Returns:
        `Dataset`.

    Raises:
        ValueError: an unknown name, no `data_dir` where files are needed, or a damaged file.
        FileNotFoundError: a missing folder or file; says what was expected, where, and where to get it.
    """
    if name == "digits":
        return load_digits()
    if name not in _READERS:
        raise ValueError(f"load: name must be one of {', '.join(names())}, got {name!r}")
    if data_dir is None:
        raise ValueError(f"load: {name} is read from files; pass data_dir (--data-dir), the folder that holds them")
    root = Path(data_dir)
    if not root.is_dir():
        raise FileNotFoundError(f"load: data_dir must be an existing folder, got {root}")
    return _READERS[name](root)
