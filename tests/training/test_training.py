"""The loop learns, repeats itself bit for bit, and survives being interrupted."""

import math

import pytest
import torch
from torch import nn

from sparseprune import data
from sparseprune.data.dataset import Dataset
from sparseprune.training import evaluate, train


def tiny(name: str = "tiny", count: int = 96) -> Dataset:
    """Three classes, told apart by which third of the image is bright."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(count) % 3
    pixels = torch.randint(0, 100, (count, 1, 6, 6), generator=generator)
    for k in range(3):
        pixels[targets == k, :, 2 * k : 2 * k + 2] += 100
    split = (pixels.to(torch.uint8), targets)
    return Dataset.build(name, split, (split[0][:30], split[1][:30]), classes=3)


def net(seed: int = 0, dropout: float = 0.0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        conv = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
        return nn.Sequential(conv, nn.Dropout(dropout), nn.Linear(64, 3))


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_it_learns_real_digits():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    history = train(model, data.load("digits"), epochs=6, batch_size=64)
    assert history.accuracy > 0.93 and len(history.losses) == 6 and history.losses[-1] < history.losses[0] / 4
    assert not history.diverged


def test_the_update_is_the_documented_one():
    """Two steps of one full batch, lr cut after the first, against the formula by hand."""
    dataset = tiny()
    model, w = nn.Sequential(nn.Flatten(), nn.Linear(36, 3, bias=False)).double(), None
    w = model[1].weight.detach().clone().requires_grad_()
    with torch.no_grad():
        model[1].weight.copy_(w)
    object.__setattr__(dataset, "mean", dataset.mean.double())  # inputs in float64 too
    velocity = torch.zeros_like(w)
    for lr in (0.05, 0.005):
        loss = nn.functional.cross_entropy(dataset.train_inputs.flatten(1) @ w.T, dataset.train_targets)
        (gradient,) = torch.autograd.grad(loss, w)
        velocity = 0.8 * velocity + gradient + 0.01 * w.detach()
        w = (w.detach() - lr * velocity).requires_grad_()
    train(model, dataset, epochs=2, batch_size=96, lr=0.05, momentum=0.8, weight_decay=0.01, milestones=[1])
    torch.testing.assert_close(model[1].weight, w, rtol=1e-9, atol=1e-12)


def test_default_milestones_are_half_and_three_quarters():
    """Four epochs by default equal four with milestones 2 and 3, and no other."""
    models = [net() for _ in range(3)]
    train(models[0], tiny(), epochs=4)
    train(models[1], tiny(), epochs=4, milestones=[2, 3])
    train(models[2], tiny(), epochs=4, milestones=[1, 3])
    assert same(models[0], models[1]) and not same(models[0], models[2])


def test_cosine_goes_by_its_formula():
    """One full batch an epoch and neither momentum nor decay: each step is lr (1 + cos(pi e/E))/2 of the gradient."""
    ours, theirs = net(), net()
    options = {"batch_size": 96, "momentum": 0.0, "weight_decay": 0.0}
    train(ours, tiny(), epochs=4, lr=0.05, schedule="cosine", **options)
    for epoch in range(4):
        train(theirs, tiny(), epochs=1, lr=0.05 * (1 + math.cos(math.pi * epoch / 4)) / 2, **options)
    torch.testing.assert_close(ours[2].weight, theirs[2].weight)
    with pytest.raises(ValueError, match="train: schedule must be 'steps' or 'cosine', got 'warm'"):
        train(net(), tiny(), epochs=1, schedule="warm")


def test_the_seed_decides_everything_and_no_global_generator_is_used():
    state = torch.get_rng_state()
    models = [net(dropout=0.5) for _ in range(3)]
    first, second, other = (train(m, tiny(), epochs=2, seed=s) for m, s in zip(models, (1, 1, 2), strict=True))
    assert torch.equal(state, torch.get_rng_state())
    assert first == second and same(models[0], models[1])
    assert first.losses != other.losses


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("step", [1, 5, 9, 13])
def test_an_interrupted_run_resumes_to_the_same_bits(tmp_path, step):
    """4 epochs of 3 steps with momentum, batch norm, dropout and a lr cut, killed in the middle of one."""
    options = {"epochs": 4, "batch_size": 32, "augment": True, "seed": 7}
    whole = net(dropout=0.3)
    expected = train(whole, tiny(), **options)
    path = tmp_path / "deep" / "run.pt"

    def stop(done: int, total: int) -> None:
        assert total == 12
        if done == step:
            raise Interrupted

    if step <= 12:
        with pytest.raises(Interrupted):
            train(net(dropout=0.3), tiny(), checkpoint=path, progress=stop, **options)
        assert path.exists() == (step > 3)
    resumed = net(seed=99, dropout=0.3) if step > 3 and step <= 12 else net(dropout=0.3)
    steps = []
    history = train(resumed, tiny(), checkpoint=path, progress=lambda done, _: steps.append(done), **options)
    assert history == expected and same(resumed, whole)
    assert steps[0] == min(step - 1, 12) // 3 * 3 + 1 if step <= 12 else steps[0] == 1
    again = net(seed=3)
    assert train(again, tiny(), checkpoint=path, **options) == expected, "a finished run is only measured"
    assert list(path.parent.iterdir()) == [path]


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    path = tmp_path / "run.pt"
    train(net(), tiny(), epochs=1, checkpoint=path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"train: checkpoint .*run.pt was written with another lr: .*0\.1.*0\.2"):
        train(net(), tiny(), epochs=1, lr=0.2, checkpoint=path)
    with pytest.raises(ValueError, match=r"another data"):
        train(net(), tiny("other"), epochs=1, checkpoint=path)
    with pytest.raises(ValueError, match=r"is of another model"):
        train(nn.Sequential(nn.Flatten(), nn.Linear(36, 3)), tiny(), epochs=1, checkpoint=path)
    assert path.read_bytes() == before
    path.write_bytes(before[: len(before) // 2])
    with pytest.raises(ValueError, match=r"run.pt is not one of ours or is damaged"):
        train(net(), tiny(), epochs=1, checkpoint=path)
    path.write_bytes(b"text")
    with pytest.raises(ValueError, match=r"run.pt is not one of ours or is damaged"):
        train(net(), tiny(), epochs=1, checkpoint=path)


def test_checkpoints_wait_for_their_time(tmp_path):
    train(net(), tiny(), epochs=2, checkpoint=tmp_path / "run.pt", checkpoint_seconds=3600)
    assert not any(tmp_path.iterdir())


def test_evaluate_counts_the_right_ones_in_eval_mode():
    model = nn.Sequential(nn.Dropout(0.9), nn.Identity())
    inputs = torch.eye(4)[[0, 1, 2, 3, 0, 0]]
    assert evaluate(model, inputs, torch.tensor([0, 1, 2, 3, 1, 2]), batch_size=4) == pytest.approx(4 / 6)
    assert model.training, "the mode is left as found"
    model[0].eval()
    evaluate(model, inputs, torch.zeros(6, dtype=torch.int64))
    assert [m.training for m in model.modules()] == [True, False, True], "of every module"
    inputs[0] = float("nan")
    assert evaluate(model, inputs, torch.zeros(6, dtype=torch.int64)) == pytest.approx(2 / 6), "NaN is never right"
    with pytest.raises(ValueError, match="at least one example"):
        evaluate(model, inputs[:0], torch.zeros(0, dtype=torch.int64))


def test_a_diverged_run_says_so():
    history = train(net(), tiny(), epochs=3, lr=1e30)
    assert history.diverged and history.accuracy == 0.0


def test_zero_epochs_only_measure():
    model, twin = net(), net()
    history = train(model, tiny(), epochs=0)
    assert history.losses == () and same(model, twin) and not history.diverged


@pytest.mark.parametrize(
    ("argument", "value"), [("epochs", -1), ("lr", float("nan")), ("momentum", -0.1), ("weight_decay", float("inf"))]
)
def test_bad_numbers(argument, value):
    with pytest.raises(ValueError, match=f"train: {argument} must be .*got {value}"):
        train(net(), tiny(), **{"epochs": 1, argument: value})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_it_learns_and_resumes(tmp_path):
    model = net()
    history = train(model, tiny(), epochs=8, device="cuda", augment=False, checkpoint=tmp_path / "run.pt")
    assert history.accuracy > 0.9 and next(model.parameters()).is_cuda
    assert train(net(), tiny(), epochs=8, device="cuda", checkpoint=tmp_path / "run.pt") == history
