"""Weight-subnetworks: chances, constructions, counts and exact errors of Lemmas 2.4-2.6, Theorems 2.1 and 2.3."""

import math

import pytest
import torch

from sparseprune.theory.lottery import errors, products, universal, weights


def uniform(*shape, seed=0):
    return torch.empty(shape, dtype=torch.float64).uniform_(-1, 1, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("alpha", "tolerance", "expected"),
    [
        (0.3, 0.05, 0.030216038),
        (0.1, 0.05, 0.058695346),
        (0.0, 0.05, 0.099893307),
        (0.5, 0.01, 0.003466069),
        (0.3, 0.01, 0.006020790),
    ],
)
def test_lemma_2_4_chance_of_a_product(alpha, tolerance, expected):
    assert products.hit_probability(alpha, tolerance) == pytest.approx(expected, abs=5e-10)
    u, w = uniform(2, 400_000, seed=1)
    share = float(((u > 0) & ((u * w - alpha).abs() <= tolerance)).double().mean())
    assert abs(share - expected) < 4.5 * math.sqrt(expected / 400_000)


def test_lemma_2_4_chance_of_the_papers_route_and_its_width():
    assert products.hit_probability_printed(0.3, 0.05) == pytest.approx(0.05**2 / 2)
    u, w = uniform(2, 400_000, seed=2)
    for alpha in (0.3, 0.98):  # the second at the cube's edge
        share = float((((w - alpha).abs() <= 0.05) & ((u - 1).abs() <= 0.05)).double().mean())
        expected = products.hit_probability_printed(alpha, 0.05)
        assert abs(share - expected) < 4.5 * math.sqrt(expected / 400_000)
    for width, power in ((products.width, 1), (products.width_printed, 2)):
        growth = math.log(width(0.3, 1e-4, 0.05) / width(0.3, 1e-3, 0.05), 10)
        assert growth == pytest.approx(power, abs=0.01)


@pytest.mark.parametrize(("d", "expected"), [(10, 1041), (16, 1491), (50, 3886)])
def test_lemma_2_5_width(d, expected):
    exact = math.log(2 * d / 0.05) / products.hit_probability(d**-0.5, 0.1 / d)
    assert round(exact) == expected and products.width(d**-0.5, 0.1 / d, 0.05, 2 * d) == math.ceil(exact)


def test_lemma_2_4_error_is_exact_and_at_most_the_larger_side():
    u, w = uniform(2, 5000, 2, seed=3)
    u = torch.stack([u[:, 0].abs(), -u[:, 1].abs()], 1)
    alpha = uniform(5000, seed=4)
    found = errors.linear_error(w.unsqueeze(-1), u.unsqueeze(1), alpha.view(-1, 1, 1)).flatten()
    right, left = (u * w.relu()).sum(1), (u * (-w).relu()).sum(1)
    formula = torch.maximum((right - alpha).abs(), (left + alpha).abs())
    assert torch.equal(found, formula)
    sides = (u * w - alpha.unsqueeze(1)).abs().amax(1)
    assert bool((found <= sides + 1e-12).all())
    good = (w.sign() == alpha.sign().unsqueeze(1) * torch.tensor([1.0, -1.0])).all(1)
    assert torch.allclose(found[good], sides[good]) and bool((found < sides - 1e-3).any())


def lemma24_errors(alpha, units, draws, seed=0, **options):
    u, w = uniform(2, draws, units, seed=seed)
    target = torch.full((draws,), alpha, dtype=torch.float64)
    chosen = weights.search(u, w, target, **options)
    pair = w.gather(1, chosen).unsqueeze(-1), u.gather(1, chosen).unsqueeze(1)
    return errors.linear_error(*pair, target.view(-1, 1, 1)).flatten()


def test_lemma_2_4_success_and_median():
    found = lemma24_errors(0.3, 200, 2000)
    for tolerance in (0.005, 0.01, 0.02):
        p = products.success_probability(0.3, tolerance, 200)
        assert abs(float((found <= tolerance).double().mean()) - p) < 4.5 * math.sqrt(p * (1 - p) / 2000)
    assert 2.456 / math.log(1 / 0.3) == pytest.approx(products.median_error(0.3, 1), rel=1e-4)
    assert [round(products.median_error(a, 1), 2) for a in (0.3, 0.1, 0.02)] == [2.04, 1.07, 0.63]
    assert float(found.median()) == pytest.approx(products.median_error(0.3, 200), rel=4.5 * 0.983 / 2000**0.5)


def test_lemma_2_4_product_falls_like_1_over_k_and_the_papers_route_like_its_root():
    for printed, power in ((False, -1), (True, -0.5)):
        few, many = (lemma24_errors(0.3, k, 400, printed=printed).log().mean() for k in (256, 4096))
        assert float(many - few) / math.log(16) == pytest.approx(power, abs=0.1)


def test_search_needs_both_signs():
    with pytest.raises(ValueError, match=r"lottery: each block of units must have both signs of u, got 3 units"):
        weights.search(torch.ones(3), torch.ones(3), torch.tensor(0.5))


@pytest.mark.parametrize("norm", [2, math.inf])
def test_lemma_2_5_error_is_exact(norm):
    d = 3
    network, target = weights.random_network([d, d * 30, 1], 0), weights.random_target([d, 1], 1)
    ticket = weights.theorem21(network, target)
    assert ticket.active == [2 * d, 2 * d] and int(ticket.masks[0].sum(1).max()) == 1
    first, second = ticket.compact()
    exact = float(errors.linear_error(first, second, target[0], norm))
    x = uniform(200_000, d, seed=2)
    x = x / torch.linalg.vector_norm(x, norm, 1, keepdim=True)
    x = torch.cat([x, torch.cartesian_prod(*[torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)] * d)])
    x = x[torch.linalg.vector_norm(x, norm, 1) <= 1 + 1e-12]
    dense = (x @ (network[0] * ticket.masks[0]).double().T).relu() @ (network[1] * ticket.masks[1]).double().T
    found = float((dense - x @ target[0].T).abs().max())
    assert found <= exact + 1e-12 and found == pytest.approx(exact, rel=1e-3)
    up, down = errors.slope_errors(first, second, target[0])
    worst = float(torch.maximum(up.abs(), down.abs()).max())
    assert exact <= worst * (math.sqrt(d) if norm == 2 else d) + 1e-12


def test_lemma_2_6_homogeneity_removes_the_error_of_the_output_weight():
    network = weights.random_network([2, 40_000, 5, 1], 0)
    target = [torch.tensor([[0.5, -0.3]], dtype=torch.float64), torch.tensor([[-0.4]], dtype=torch.float64)]
    kept, printed = (weights.theorem23(network, target, printed=option).compact() for option in (False, True))
    ours, theirs = (errors.searched_error(ticket, target, 500) for ticket in (kept, printed))
    assert ours < 1e-3
    assert theirs == pytest.approx(float((printed[2] - target[1]).abs() * target[0].norm()), rel=0.02)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("printed", [False, True])
def test_theorem_2_3_counts_untouched_weights_and_certificate(printed, shared):
    d, n = 8, 4
    network = weights.random_network([d, n * 200 + 3, n * 20 + 1, 1], 5)  # a few units too many
    before = [weight.clone() for weight in network]
    target = weights.random_target([d, n, 1], 6)
    ticket = weights.theorem23(network, target, printed, shared)
    assert ticket.active == [2 * d * n, 2 * d * n, n] and sum(ticket.active) == 4 * d * n + n == 132
    assert all(torch.equal(a, b) for a, b in zip(network, before, strict=True)) and ticket.network is network
    x = uniform(100, d, seed=7)
    masked = [(weight * mask).double() for weight, mask in zip(network, ticket.masks, strict=True)]
    compact = ticket.compact()
    assert torch.allclose(weights.forward(masked, x), weights.forward(compact, x), atol=1e-13)
    found = errors.searched_error(compact, target, 2000)
    assert 0 < found <= errors.certificate23(compact, target) < 1


def test_theorem_2_3_certificate_where_an_output_weight_has_the_wrong_sign():
    target = weights.random_target([3, 2, 1], 0)
    network = [
        *weights.random_network([3, 600, 2], 1),
        torch.tensor([[0.5, -0.5]]) * target[1].sign() * torch.tensor([1, -1]) * torch.tensor([-1.0, 1.0]),
    ]
    with pytest.raises(ValueError, match="an output weight of its sign, got none among its 1"):
        weights.theorem23(network, target)
    compact = weights.theorem23(network, target, printed=True).compact()
    assert errors.searched_error(compact, target, 2000) <= errors.certificate23(compact, target) < math.inf


def test_theorem_2_3_in_the_specifications_sizes():
    for k1, k2, most in ((200, 20, 0.35), (1000, 100, 0.05)):
        target, network = weights.random_target([8, 4, 1], 3), weights.random_network([8, 4 * k1, 4 * k2, 1], 4)
        assert errors.searched_error(weights.theorem23(network, target).compact(), target, 2000) < most


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_theorem_2_1_counts_and_certificate(depth):
    d, n, k = 3, 2, 200
    target = weights.random_target([d, *[n] * (depth - 1), 1], depth)
    sizes = [d]
    for layer in target:
        sizes += [k * layer.numel(), len(layer)]
    ticket = weights.theorem21(weights.random_network(sizes, 10 + depth), target)
    parameters = sum(layer.numel() for layer in target)
    assert depth == 1 or parameters == d * n + n * n * (depth - 2) + n
    assert ticket.active == [2 * layer.numel() for layer in target for _ in range(2)]
    assert sum(ticket.active) == 4 * parameters
    found, bound = errors.searched_error(ticket.compact(), target, 2000), errors.certificate21(ticket.compact(), target)
    assert 0 < found <= bound + 1e-12 and bound < 0.2
    if depth == 1:
        assert found == pytest.approx(bound, rel=1e-3)


def test_theorem_2_1_tolerance_of_a_layer():
    for depth, outputs, eps in ((2, 4, 1.0), (5, 9, 0.1)):
        own, error = errors.layer_tolerance(eps, depth, outputs), 0.0
        for _ in range(depth):
            error += math.sqrt(outputs) * own * (1 + error)
        assert eps / 2 < error <= eps


def test_targets_are_the_theorems():
    for layer in weights.random_target([5, 7, 7, 1], 0):
        assert float(layer.abs().max()) <= layer.shape[1] ** -0.5
        assert float(torch.linalg.matrix_norm(layer, 2)) <= 1 + 1e-12


def test_shared_units_are_nearer_and_each_serves_one_weight():
    network, target = weights.random_network([6, 1200, 3], 0), [weights.random_target([6, 3], 1)[0]]
    blocks, shared = (weights.linear_masks(*network, target[0], option) for option in (False, True))
    assert all(int(mask[0].sum(1).max()) == 1 and int(mask[1].sum(0).max()) == 1 for mask in (blocks, shared))
    assert all(int(mask.sum()) == 36 for mask in (*blocks, *shared))
    far, near = (errors.certificate21(weights.Ticket(network, [*m]).compact(), target) for m in (blocks, shared))
    assert near < far / 5


def test_too_few_units():
    with pytest.raises(ValueError, match="must have 18 units or more, got 17"):
        weights.linear_masks(torch.ones(17, 6), torch.ones(3, 17), torch.ones(3, 6))


def test_searched_error_finds_a_narrow_peak():
    target = [torch.tensor([[1.0, 0, 0, 0], [0.9, 0.4359, 0, 0]], dtype=torch.float64), torch.ones(1, 2).double()]
    nothing = [torch.zeros(1, 4).double(), torch.zeros(1, 1).double()]
    exact = float(target[0].sum(0).norm())
    assert errors.searched_error(nothing, target, 1000) == pytest.approx(exact, rel=1e-4)


def test_gaussian_error_against_draws():
    network, target = weights.random_network([3, 60, 2], 0), weights.random_target([3, 2], 1)
    first, second = weights.theorem21(network, target).compact()
    x = torch.randn(400_000, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    squares = (weights.forward([first, second], x) - x @ target[0].T).square()
    off = (squares.mean(0) - errors.gaussian_error(first, second, target[0])).abs()
    assert bool((off < 4.5 * squares.std(0) / 400_000**0.5).all())


def test_section_3_error_of_the_best_random_features():
    features, target = uniform(6, 3, seed=0), torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64)
    x = torch.randn(400_000, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    values, y = (x @ features.T).relu(), (x @ target).relu()
    fitted = values @ torch.linalg.solve(values.T @ values, values.T @ y)
    squares = (fitted - y).square()
    assert (
        abs(float(squares.mean()) - errors.random_features_error(features, target)) < 4.5 * float(squares.std()) / 632
    )
    assert errors.random_features_error(torch.cat([features, 2 * target.unsqueeze(0)]), target) == pytest.approx(
        0, abs=1e-12
    )


def test_universality_of_weight_tickets():
    target, factor = universal.interpolant(torch.sin, 6)
    assert float(target[0].abs().max()) <= 0.5**0.5 + 1e-15 and float(target[1].abs().max()) == 1
    t = torch.linspace(-1, 1, 7, dtype=torch.float64)
    inputs = universal.lift(t)
    assert float(inputs.norm(dim=1).max()) <= 1 + 1e-15
    assert torch.allclose(factor * weights.forward(target, inputs)[:, 0], t.sin(), atol=1e-14)
    ticket = weights.theorem23(weights.random_network([2, 7 * 2000, 7 * 10, 1], 0), target).compact()
    t = torch.linspace(-1, 1, 101, dtype=torch.float64)
    assert float((factor * weights.forward(ticket, universal.lift(t))[:, 0] - t.sin()).abs().max()) < 0.05
