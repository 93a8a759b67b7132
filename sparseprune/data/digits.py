"""The default: scikit-learn's bundled handwritten digits, real and with nothing to download."""

from __future__ import annotations

import torch

from .dataset import Dataset

_TEST = 360  # a fifth of 1,797
_SPLIT_SEED = 0


def load_digits() -> Dataset:
    """Load the 1,797 digits of 8 x 8 pixels (0 to 16), in one fixed split of 1,437 and 360."""
    try:
        from sklearn.datasets import load_digits as bundled
    except ImportError:
        raise ImportError('load: digits comes with scikit-learn; pip install "sparseprune[cli]"') from None
    data, targets = bundled(return_X_y=True)
    pixels = torch.from_numpy(data).to(torch.uint8).view(-1, 1, 8, 8)
    labels = torch.from_numpy(targets).long()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(_SPLIT_SEED))
    test, train = order[:_TEST], order[_TEST:]
    return Dataset.build("digits", (pixels[train], labels[train]), (pixels[test], labels[test]), classes=10)
