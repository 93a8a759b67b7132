"""Fields, order parameters and ODEs of paper 004's teachers and students: oracles, drawn inputs, steps of SGD."""

import math

import pytest
import torch

from sparseprune.nodes import k_dpp
from sparseprune.nodes.gram import Gram
from sparseprune.theory.teacher_student import integrals, networks, odes
from sparseprune.theory.teacher_student import order_parameters as order

F64 = torch.float64
C = torch.tensor([[1, 0.5, 0.2, 0.1], [0.5, 1.5, 0.3, 0.2], [0.2, 0.3, 1, 0.4], [0.1, 0.2, 0.4, 2]], dtype=F64)
TEACHER, STUDENT = networks.random_teacher(2, 40, 4.0, seed=0), networks.random_student(6, 40, seed=1)


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def slope(z: torch.Tensor) -> torch.Tensor:
    return math.sqrt(2 / math.pi) * (-z.square() / 2).exp()


def near(draws: torch.Tensor, exact: torch.Tensor | float) -> bool:
    """Whether the means over the first dimension are within 5 standard errors."""
    return bool(((draws.mean(0) - exact).abs() < 5 * draws.std(0) / len(draws) ** 0.5).all())


def pair(i: int, j: int) -> torch.Tensor:
    return C[i - 1, j - 1]


def test_integrals_oracle():
    found = [
        integrals.i2(pair(1, 1), pair(1, 2), pair(2, 2)),
        integrals.j2(pair(1, 1), pair(1, 2), pair(2, 2)),
        integrals.i3(pair(1, 1), pair(1, 2), pair(1, 3), pair(2, 3), pair(3, 3)),
        integrals.i4(*(pair(i, j) for i in range(1, 5) for j in range(i, 5))),
    ]
    oracle = [0.14356629312870628, 0.2921011845484373, 0.07997836814639137, 0.028741295994038966]
    assert [float(value) for value in found] == pytest.approx(oracle, rel=1e-14)


def test_integrals_by_drawn_fields():
    z = (normal(200_000, 4, seed=0) @ torch.linalg.cholesky(C).mT).unbind(-1)
    g, s = [networks.activation(field) for field in z], [slope(field) for field in z]
    assert near(g[0] * g[1], 0.14356629312870628) and near(s[0] * s[1], 0.2921011845484373)
    assert near(s[0] * z[1] * g[2], 0.07997836814639137) and near(s[0] * s[1] * g[2] * g[3], 0.028741295994038966)
    numeric = (networks.activation(torch.tensor(0.3 + 1e-6)) - networks.activation(torch.tensor(0.3 - 1e-6))) / 2e-6
    assert slope(torch.tensor(0.3, dtype=F64)) == pytest.approx(float(numeric), abs=0.05)


def test_equation_3_and_13_generalisation_error_is_half_the_mean_square():
    p = order.order_parameters(STUDENT, TEACHER)
    assert torch.equal(p.T, TEACHER.w @ TEACHER.w.mT / 40) and p.R.shape == (6, 2)
    halves = networks.monte_carlo_error(STUDENT, TEACHER, 50_000, seed=2)
    assert near(halves, order.generalisation_error(p))
    assert not near(2 * halves, order.generalisation_error(p))
    own = order.order_parameters(TEACHER, TEACHER)
    assert float(order.generalisation_error(own)) == pytest.approx(0, abs=1e-12)


def test_equation_13_is_f1_plus_f2_minus_f3():
    p = order.order_parameters(STUDENT, TEACHER)

    def part(weights: torch.Tensor, others: torch.Tensor, overlap: torch.Tensor, own, theirs) -> float:
        angles = (overlap / ((1 + own)[:, None] * (1 + theirs)).sqrt()).asin()
        return float(weights @ angles @ others) / math.pi

    q, t = p.Q.diagonal(), p.T.diagonal()
    f1, f2 = part(p.v, p.v, p.Q, q, q), part(p.v_star, p.v_star, p.T, t, t)
    f3 = 2 * part(p.v, p.v_star, p.R, q, t)
    assert float(order.generalisation_error(p)) == pytest.approx(f1 + f2 - f3, rel=1e-12)


def test_signs_change_nothing_but_themselves():
    x = normal(5, 40, seed=3)
    flipped = STUDENT.canonical()
    assert (STUDENT.v < 0).any() and (flipped.v >= 0).all()
    torch.testing.assert_close(networks.forward(flipped, x), networks.forward(STUDENT, x))
    torch.testing.assert_close(
        order.order_parameters(STUDENT, TEACHER).canonical(), order.order_parameters(flipped, TEACHER)
    )


def test_batches_are_their_members():
    students = [networks.random_student(6, 40, seed=s) for s in (1, 2, 3)]
    batch = networks.Network(*(torch.stack(parts) for parts in zip(*students, strict=True)))
    p = order.order_parameters(batch, TEACHER)
    masks = torch.tensor([[1, 0, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1]])
    parts = order.generalisation_error(order.keep_units(p, masks)), order.generalisation_error(order.reweight(p, masks))
    change = odes.derivatives(p, 0.5, 0.1)
    for s, student in enumerate(students):
        one = order.order_parameters(student, TEACHER)
        assert float(parts[0][s]) == pytest.approx(float(order.generalisation_error(order.keep_units(one, masks[s]))))
        assert float(parts[1][s]) == pytest.approx(float(order.generalisation_error(order.reweight(one, masks[s]))))
        torch.testing.assert_close(change.Q[s], odes.derivatives(one, 0.5, 0.1).Q)
    many = order.generalisation_error(order.keep_units(order.order_parameters(students[0], TEACHER), masks))
    assert many.shape == (3,) and float(many[0]) == pytest.approx(float(parts[0][0]))


def test_reweighting_is_least_squares_over_inputs():
    kept = torch.tensor([1, 0, 1, 1, 0, 0])
    p = order.order_parameters(STUDENT, TEACHER)
    hidden = networks.activation(normal(100_000, 40, seed=4) @ STUDENT.w.mT / math.sqrt(40))
    drawn = torch.linalg.lstsq(hidden[:, kept.bool()], (hidden @ STUDENT.v)[:, None]).solution[:, 0]
    found = order.reweight(p, kept).v
    assert (found[kept == 0] == 0).all()
    torch.testing.assert_close(found[kept == 1], drawn, atol=0.02, rtol=0)
    # Duplicates share what either would carry alone: of many solutions the least.
    twins = order.reweight(order.ansatz(1, 3, 3.0), torch.tensor([1, 1, 0]))
    assert twins.v.tolist() == pytest.approx([1.5, 1.5, 0])


def test_lemma_1_expected_kernel_is_q_at_every_width():
    inputs = 6
    student = networks.random_student(3, inputs, seed=5)
    fields = normal(4000, 20, inputs, seed=6) @ student.w.mT
    kernels = fields.mT @ fields / (20 * inputs)
    assert near(kernels, student.w @ student.w.mT / inputs)


def test_lemma_1_of_signs_the_linear_kernel_knows_a_unit_from_its_twin_the_rbf_kernel_does_not():
    hidden = normal(50, 2, seed=7)
    features = Gram(torch.stack([hidden[:, 0], -hidden[:, 0], hidden[:, 1]], dim=1))
    pairs = {name: k_dpp(kernel(), 2, seed=0, samples=200) for name, kernel in features_kernels(features).items()}
    twins = {name: float((sets == torch.tensor([0, 1])).all(-1).double().mean()) for name, sets in pairs.items()}
    assert twins["linear"] < 0.05 < 0.2 < twins["rbf"]


def features_kernels(features: Gram):
    return {"linear": lambda: features.linear(1e-6), "rbf": lambda: features.rbf(beta=0.3 * 50, epsilon=1e-6)}


def test_lemma_3_group_sums_are_a_fixed_point_and_the_rate_is_a_third():
    p = order.ansatz(2, 3, 4.0)
    still = odes.derivatives(p, 0.5)
    assert max(float(part.abs().max()) for part in still) < 1e-14
    v = torch.tensor([1.0, 0.5, 2.5, 3.0, 0.0, 1.0], dtype=F64)
    assert float(odes.derivatives(p._replace(v=v), 0.5).v.abs().max()) < 1e-14  # the sums are v*
    wrong = torch.tensor([1.0, 0.5, 2.0, 1.0, 1.0, 1.0], dtype=F64)
    missing = 4 - wrong.view(2, 3).sum(1).repeat_interleave(3)
    change = odes.derivatives(p._replace(v=wrong), 0.1, eta_v=0.7).v
    torch.testing.assert_close(change, 0.7 * odes.lemma_3_rate() * missing)
    assert odes.lemma_3_rate() == pytest.approx(1 / 3, rel=1e-15)
    assert odes.lemma_3_rate_printed() == pytest.approx(math.pi / 6, rel=1e-15)


@pytest.mark.parametrize("sigma", [0.0, 0.5])
def test_odes_are_the_means_of_one_step(sigma):
    p, eta, eta_v = order.order_parameters(STUDENT, TEACHER), 0.3, 0.2
    z = normal(100_000, 8, seed=8) @ torch.linalg.cholesky(p.covariance()).mT
    noise = sigma * normal(100_000, seed=9)
    delta = networks.activation(z) @ torch.cat([p.v, -p.v_star]) - noise
    push = -eta * p.v * slope(z[:, :6]) * delta[:, None]  # of a step: w_k moves by push x / sqrt N
    found = odes.derivatives(p, eta, sigma, eta_v)
    assert near(push[:, :, None] * z[:, None, 6:], found.R)
    cross = push[:, :, None] * z[:, None, :6]
    assert near(cross + cross.mT + push[:, :, None] * push[:, None], found.Q)  # |x|^2 = N
    assert near(-eta_v * networks.activation(z[:, :6]) * delta[:, None], found.v)
    assert not found.T.any() and not found.v_star.any()


def test_odes_are_the_limit_of_online_sgd():
    inputs, runs, steps, eta = 150, 12, 600, 0.5
    teacher, start = networks.random_teacher(1, inputs, 1.0, 10), networks.random_student(2, inputs, 11)
    w, v = start.w.repeat(runs, 1, 1), start.v.repeat(runs, 1)
    generator = torch.Generator().manual_seed(12)
    for _ in range(steps):
        x = torch.randn(runs, 1, inputs, dtype=F64, generator=generator)
        z = (x @ w.mT).squeeze(1) / math.sqrt(inputs)
        delta = (networks.activation(z) * v).sum(-1) - networks.forward(teacher, x).squeeze(-1)
        change = eta * delta[:, None]
        w = w - (change * v * slope(z) / math.sqrt(inputs))[..., None] * x
        v = v - change * networks.activation(z) / inputs
    ends = order.order_parameters(networks.Network(w, v), teacher)
    path = odes.integrate(order.order_parameters(start, teacher), [0.0, steps / inputs], eta)
    before, limit = order.generalisation_error(path).tolist()
    assert before == pytest.approx(float(order.generalisation_error(order.order_parameters(start, teacher))))
    assert limit < 0.6 * before
    # A run is off by O(1 / sqrt N); the mean by O(1 / N), that is about its standard error here.
    for name in ("Q", "R", "v"):
        drawn, exact = getattr(ends, name), getattr(path, name)[1]
        assert bool(((drawn.mean(0) - exact).abs() < 5 * drawn.std(0) / runs**0.5 + 5 / inputs).all())
    assert float((path.R[1] - path.R[0]).abs().max()) > 20 / inputs


def test_odes_that_are_not_finite_say_so():
    p = order.order_parameters(STUDENT, TEACHER)
    with pytest.raises(ArithmeticError, match="integrate: the derivatives"):
        odes.integrate(p._replace(v=1e200 * p.v), [1.0], eta=0.5)


def test_edge_reweighting_has_nothing_to_do_for_isotropic_inputs():
    # delta = argmin |X_in delta - X_out w_out|: kept and dropped inputs are independent, so it falls like 1/sqrt(n).
    sizes, inputs = (200, 20_000), 20
    w = normal(inputs, seed=13)
    found = []
    for n in sizes:
        x = normal(n, inputs, seed=n)
        gram = Gram(x)
        kept, dropped = torch.arange(10), torch.arange(10, 20)
        delta = gram.regress(kept, x[:, kept].mT @ (x[:, dropped] @ w[dropped])[:, None])
        found.append(float(delta.norm() / w.norm()))
    assert found[1] < 0.05 and found[0] / found[1] == pytest.approx(10, rel=0.6)
