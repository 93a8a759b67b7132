"""Finding a file in several layouts, and saying what was looked for."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

SOURCES = {
    "mnist": "the four idx .gz files of MNIST, e.g. https://ossci-datasets.s3.amazonaws.com/mnist/",
    "fashion-mnist": "the four idx .gz files of https://github.com/zalandoresearch/fashion-mnist",
    "cifar10": "cifar-10-python.tar.gz of https://www.cs.toronto.edu/~kriz/cifar.html, unpacked",
    "cifar100": "cifar-100-python.tar.gz of https://www.cs.toronto.edu/~kriz/cifar.html, unpacked",
    "tiny-imagenet": "http://cs231n.stanford.edu/tiny-imagenet-200.zip, unpacked",
}


def find(name: str, folders: Iterable[Path], spellings: Iterable[str]) -> Path:
    """Return the first `folder / spelling` that exists, or raise FileNotFoundError saying where it was sought."""
    folders, spellings = list(folders), list(spellings)
    for folder in folders:
        for spelling in spellings:
            if (folder / spelling).exists():
                return folder / spelling
    places = ", ".join(str(folder) for folder in folders)
    raise FileNotFoundError(f"load: {name} needs {spellings[0]} in one of {places}; get {SOURCES[name]}")
