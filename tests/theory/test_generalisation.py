"""Paper 003's model: side facts, data, masks, training in its kernel form, the table of section 5.3."""

import dataclasses
import itertools
import math

import pytest
import torch

from sparseprune.theory import generalisation as theory

FULL = theory.Model()
SMALL = theory.Model(classes=3, dimension=30, examples=12, units=5, noise=0.3, scale=0.1)


def test_section_5_2_thresholds():
    assert FULL.mild == pytest.approx(0.190, abs=5e-4) and FULL.over == pytest.approx(8.22e-4, abs=5e-7)
    assert FULL.edges(FULL.over) == pytest.approx(1 / math.log(2000))
    assert FULL.guess == pytest.approx(1.386, abs=5e-4)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9])
def test_section_5_2_chances_by_enumeration(keep):
    """All 2^(K m) ways to keep the edges on a signal coordinate, K = 2, m = 3; for all classes, those of each class."""
    net = theory.Model(classes=2, units=3)
    found = {"own": 0.0, "any": 0.0, "edges": 0.0, "every": 0.0}
    for kept in itertools.product((False, True), repeat=6):
        chance = math.prod(keep if one else 1 - keep for one in kept)
        found["own"] += chance * any(kept[:3])
        found["any"] += chance * any(kept)
        found["edges"] += chance * sum(kept)
        found["every"] += chance * (any(kept[:3]) and any(kept[3:]))
    expected = [net.own_edge(keep), net.any_edge(keep), net.edges(keep), net.every_class(keep)]
    assert list(found.values()) == pytest.approx(expected)


def test_data_are_a_signal_in_noise():
    x, y = theory.samples(SMALL, 20_000, [0, 1], torch.float64)
    noise = x - SMALL.signal * torch.nn.functional.one_hot(y, 30)
    assert noise.abs().max() > 3 * SMALL.noise and not torch.equal(x[0], x[1])
    assert torch.allclose(noise.mean(1), torch.zeros(2, 30).double(), atol=4.5 * SMALL.noise / 20_000**0.5)
    assert torch.allclose(noise.mT @ noise / 20_000, SMALL.noise**2 * torch.eye(30).double(), atol=0.005)
    shares = torch.nn.functional.one_hot(y, 3).double().mean(1)
    assert torch.allclose(shares, torch.full_like(shares, 1 / 3), atol=4.5 * (2 / 9 / 20_000) ** 0.5)
    assert torch.equal(theory.samples(SMALL, 20_000, [1], torch.float64)[0][0], x[1])


def test_masks_are_nested_with_their_density_and_edges():
    keep, net = [1.0, 0.4, 0.05], theory.Model(dimension=500)
    masks = theory.masks(net, keep, [3, 4])
    assert masks.shape == (2, 3, 4, 40, 500) and bool(masks[:, 0].all())
    assert bool((masks[:, 1] >= masks[:, 2]).all()) and not torch.equal(masks[0], masks[1])
    for place, p in enumerate(keep):
        share = masks[:, place].double().mean()
        assert float(share) == pytest.approx(p, abs=4.5 * math.sqrt(p * (1 - p) / masks[:, 0].numel()))
    by_hand = [[sum(int(masks[1, 2, k, r, k]) for r in range(40)) for k in range(4)]]
    assert theory.own_edges(masks)[1, 2:].tolist() == by_hand
    many = theory.own_edges(theory.masks(net, [0.05], range(500))) > 0
    chance = net.own_edge(0.05)
    assert float(many.double().mean()) == pytest.approx(chance, abs=4.5 * math.sqrt(chance * (1 - chance) / 2000))
    every = net.every_class(0.05)
    assert float(many.all(2).double().mean()) == pytest.approx(every, abs=4.5 * math.sqrt(every * (1 - every) / 500))


def outputs_by_loop(w, x):
    """Return F_k(x_i) = sum_r relu(<w_kr, x_i>), [n, K]."""
    return torch.stack([torch.stack([(row @ x.T).relu() for row in units]).sum(0) for units in w], dim=1)


def descend(w, mask, x, y, rate, until, most):
    """Train one net by autograd, as the definition says."""
    w = (w * mask).requires_grad_()
    for step in range(most + 1):
        loss = torch.nn.functional.cross_entropy(outputs_by_loop(w, x), y)
        if float(loss.detach()) < until or step == most:
            return w.detach(), loss.detach(), step
        (gradient,) = torch.autograd.grad(loss, w)
        w = (w - rate * gradient * mask).detach().requires_grad_()
    raise AssertionError


@pytest.fixture(scope="module")
def runs():
    keep, rates, seeds = [1.0, 0.5, 0.2, 0.02], [0.1, 0.2, 0.5, 1.0], [5, 6]
    w, masks = theory.weights(SMALL, seeds, torch.float64), theory.masks(SMALL, keep, seeds)
    x, y = theory.samples(SMALL, 12, seeds, torch.float64)
    return w, masks, x, y, rates, theory.train(w, masks, x, y, rates, until=0.05, most=400)


def test_training_in_kernel_form_is_gradient_descent_on_the_kept_weights(runs):
    w, masks, x, y, rates, trained = runs
    for s, p in itertools.product(range(2), range(4)):
        expected, loss, steps = descend(w[s], masks[s, p], x[s], y[s], rates[p], 0.05, 400)
        assert int(trained.steps[s, p]) == steps
        assert torch.allclose(trained.weights[s, p], expected, rtol=1e-9, atol=1e-11)
        assert float(trained.loss[s, p]) == pytest.approx(float(loss), rel=1e-9)
    assert trained.steps.unique().numel() > 4 and 400 in trained.steps, "runs end apart, some only at the last step"


def test_a_run_is_the_same_alone(runs):
    w, masks, x, y, rates, trained = runs
    alone = theory.train(w[1:], masks[1:, 2:3], x[1:], y[1:], rates[2:3], until=0.05, most=400)
    assert alone.steps[0, 0] == trained.steps[1, 2]
    assert torch.allclose(alone.weights[0, 0], trained.weights[1, 2], rtol=1e-9, atol=1e-12)


def test_evaluation_and_diagnostics_are_those_of_one_net_at_a_time(runs):
    *_, x, y, _, trained = runs
    found = theory.evaluate(trained.weights, x, y)
    outputs = theory.outputs(trained.weights, x)
    norms, signals = theory.noise_norm(trained.weights), theory.signal_coefficients(trained.weights)
    for s, p in itertools.product(range(2), range(4)):
        w = trained.weights[s, p]
        scores = outputs_by_loop(w, x[s])
        assert torch.allclose(outputs[s, p].T, scores, atol=1e-12)
        assert float(found.loss[s, p]) == pytest.approx(float(torch.nn.functional.cross_entropy(scores, y[s])))
        right = scores.argmax(1) == y[s]
        assert float(found.accuracy[s, p]) == pytest.approx(float(right.double().mean()))
        of_class = [float(right[y[s] == k].double().mean()) for k in range(3)]
        assert found.of_class[s, p].tolist() == pytest.approx(of_class)
        by_hand = [sum(max(float(w[k, r, k]), 0) for r in range(5)) for k in range(3)]
        assert signals[s, p].tolist() == pytest.approx(by_hand)
        assert float(norms[s, p]) == pytest.approx(math.sqrt(sum(float(v) ** 2 for v in w[..., 3:].flatten())))


def test_table_of_section_5_3():
    """Seed 10 at full size beside means and, of accuracies, 3 standard deviations of the specification's seeds."""
    keep = [1.0, 0.3, FULL.over]
    x, y = theory.samples(FULL, 80, [40])
    trained = theory.train(theory.weights(FULL, [41]), theory.masks(FULL, keep, [42]), x, y, [0.05 / p for p in keep])
    found = theory.evaluate(trained.weights, *theory.samples(FULL, 2000, [43]))
    for accuracy, expected, deviation in zip(
        found.accuracy[0].tolist(), (0.852, 0.935, 0.272), (0.014, 0.021, 0.070), strict=True
    ):
        assert accuracy == pytest.approx(expected, abs=3 * deviation)
    assert found.loss[0].tolist() == pytest.approx([0.694, 0.567, 5.754], rel=0.35)
    assert float(trained.loss.max()) < 1e-3
    norms = theory.noise_norm(trained.weights)[0]
    assert float(norms[0]) == pytest.approx(1.2, abs=0.05) and 50 < float(norms[2]) < 130
    assert int(trained.steps[0, 0]) == pytest.approx(441, rel=0.1) and trained.steps[0, 2] > 1000


def test_without_an_edge_to_any_signal_nothing_generalises_and_the_net_fits():
    """The mechanism of over-pruning: the signal's own edges cut, the rest kept."""
    net = dataclasses.replace(SMALL, dimension=400, noise=0.2, scale=1e-3)
    masks = theory.masks(net, [1.0], [0]).repeat(1, 2, 1, 1, 1)
    masks[:, 1, ..., :3] = False
    x, y = theory.samples(net, 12, [1])
    trained = theory.train(theory.weights(net, [2]), masks, x, y, [0.05, 0.05])
    found = theory.evaluate(trained.weights, *theory.samples(net, 4000, [3]))
    assert float(trained.loss.max()) < 1e-3 and theory.own_edges(masks)[0, 1].tolist() == [0, 0, 0]
    assert float(theory.signal_coefficients(trained.weights)[0, 1].sum()) == 0
    assert float(found.accuracy[0, 0]) > 0.6 and float(found.accuracy[0, 1]) < 0.4


def test_bad_arguments_are_named():
    net = theory.Model(classes=2, dimension=6, examples=4, units=3)
    with pytest.raises(ValueError, match=r"masks: keep and seeds must be some, each p in \[0, 1\], got keep \[2.0\]"):
        theory.masks(net, [2.0], [0])
    with pytest.raises(ValueError, match="and 0 seeds"):
        theory.masks(net, [0.5], [])
    some = theory.weights(net, [0]), theory.masks(net, [1.0, 0.5], [0]), *theory.samples(net, 4, [0])
    with pytest.raises(ValueError, match="train: rates must be 2 finite numbers > 0"):
        theory.train(*some, [0.1])
    with pytest.raises(ValueError, match="train: most must be at least 0, got -1"):
        theory.train(*some, [0.1, 0.1], most=-1)
