"""Order, augmentation and subsets: seeded, and the same twice."""

import pytest
import torch
from torch.nn import functional as F

from sparseprune import data
from sparseprune.data.batches import Batches, crop_and_flip


def numbered(count: int = 10) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.arange(count).float()[:, None], torch.arange(count)


def order(batches: Batches) -> list[int]:
    return torch.cat([target for _, target in batches]).tolist()


def test_in_order_without_shuffle_and_the_last_batch_is_smaller():
    batches = Batches(*numbered(), batch_size=4)
    assert [len(target) for _, target in batches] == [4, 4, 2] and len(batches) == 3
    assert order(batches) == list(range(10))


def test_iterating_twice_gives_the_same_batches():
    inputs = torch.randn(20, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    batches = Batches(inputs, torch.arange(20), 6, shuffle=True, seed=3, augment=True)
    for (first, target), (second, again) in zip(batches, batches, strict=True):
        assert torch.equal(first, second) and torch.equal(target, again)


def test_seed_and_epoch_change_the_order_and_nothing_is_lost():
    batches = Batches(*numbered(50), batch_size=7, shuffle=True, seed=1)
    orders = [order(batches.at(epoch)) for epoch in range(3)] + [order(Batches(*numbered(50), shuffle=True, seed=2))]
    assert all(sorted(o) == list(range(50)) for o in orders)
    assert len({tuple(o) for o in orders}) == 4
    assert order(batches.at(1)) == orders[1]


def test_the_global_generator_is_not_touched():
    state = torch.get_rng_state()
    list(Batches(torch.zeros(4, 1, 8, 8), torch.arange(4), 2, shuffle=True, augment=True))
    assert torch.equal(state, torch.get_rng_state())


def test_inputs_and_targets_stay_together_and_transform_comes_last():
    batches = Batches(*numbered(30), batch_size=8, shuffle=True, transform=lambda x: 2 * x)
    for inputs, target in batches:
        assert torch.equal(inputs[:, 0], 2.0 * target)


def test_every_crop_is_a_window_of_the_padded_image_or_its_mirror():
    images = torch.arange(1, 12 * 5 * 6 * 3 + 1).view(12, 3, 5, 6)
    out = crop_and_flip(images, torch.Generator().manual_seed(0))
    flips = 0
    for image, result in zip(F.pad(images, (4, 4, 4, 4)), out, strict=True):
        windows = [image[:, i : i + 5, j : j + 6] for i in range(9) for j in range(9)]
        plain = any(torch.equal(result, w) for w in windows)
        mirrored = any(torch.equal(result, w.flip(-1)) for w in windows)
        assert plain or mirrored
        flips += mirrored and not plain
    assert 0 < flips < 12


def test_shifts_are_uniform_and_half_are_flipped():
    images = torch.zeros(4000, 1, 9, 9, dtype=torch.uint8)
    images[:, :, 4, 4] = 1  # survives every shift; its place tells the shift
    out = crop_and_flip(images, torch.Generator().manual_seed(0))
    rows = out[:, 0].amax(2).int().argmax(1).bincount(minlength=9)
    assert out.sum() == 4000 and rows.min() > 4000 / 9 * 0.75 and rows.max() < 4000 / 9 * 1.25
    images[:, :, 4, 8] = 2  # to the right of the mark, or to its left when flipped
    out = crop_and_flip(images, torch.Generator().manual_seed(0))[:, 0].amax(1).int()
    both = (out == 2).any(1)
    right = (out == 2).int().argmax(1) > (out == 1).int().argmax(1)
    assert 0.4 < right[both].float().mean() < 0.6


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((torch.zeros(0, 2), torch.zeros(0)), "must hold at least one example"),
        ((torch.zeros(3, 2), torch.zeros(4)), "targets must have length 3, got 4"),
        ((torch.zeros(3, 2), torch.zeros(3), 0), "batch_size must be at least 1, got 0"),
    ],
)
def test_bad_arguments(arguments, reason):
    with pytest.raises(ValueError, match=f"Batches: .*{reason}"):
        Batches(*arguments)
    with pytest.raises(ValueError, match=r"augment needs inputs \[N, C, H, W\], got shape \[3, 2\]"):
        Batches(torch.zeros(3, 2), torch.zeros(3), augment=True)


def test_scoring_batches_are_balanced_normalised_and_seeded():
    digits = data.load("digits")
    batches = digits.scoring_batches(256, batch_size=100, seed=1)
    targets = torch.cat([target for _, target in batches])
    assert [len(target) for _, target in batches] == [100, 100, 56]
    counts = targets.bincount(minlength=10)
    assert counts.sum() == 256 and int(counts.max() - counts.min()) <= 1
    first = next(iter(batches))[0]
    assert first.dtype == torch.float32 and first.shape == (100, 1, 8, 8) and -1 < float(first.mean()) < 1
    again = next(iter(digits.scoring_batches(256, batch_size=100, seed=1)))[0]
    other = next(iter(digits.scoring_batches(256, batch_size=100, seed=2)))[0]
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_scoring_batches_take_everything_where_there_is_less():
    digits = data.load("digits")
    assert len(digits.scoring_batches(10_000).targets) == 1437
    with pytest.raises(ValueError, match="samples must be at least 1, got 0"):
        digits.scoring_batches(0)


def test_training_batches_follow_the_data_set():
    digits = data.load("digits")
    batches = digits.batches(64, seed=5)
    inputs, targets = next(iter(batches))
    assert inputs.shape == (64, 1, 8, 8) and inputs.dtype == torch.float32 and targets.dtype == torch.int64
    pool = digits.train_inputs.flatten(1)
    assert all((pool == row).all(1).any() for row in inputs[:4].flatten(1))
    assert digits.to("cpu").train_pixels is digits.train_pixels
