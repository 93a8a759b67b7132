"""Online SGD of students: parts of a run, batches, and the theory that it tends to."""

import pytest
import torch

from sparseprune.theory.teacher_student.networks import Network, random_student, random_teacher
from sparseprune.theory.teacher_student.odes import integrate
from sparseprune.theory.teacher_student.order_parameters import OrderParameters, generalisation_error, order_parameters
from sparseprune.theory.teacher_student.simulate import simulate


def nets(runs: int, n: int, K: int = 4, M: int = 2, v_star: float = 1.0) -> tuple[Network, Network]:
    teachers, students = (
        [random_teacher(M, n, v_star, 2 * r) for r in range(runs)],
        [random_student(K, n, 2 * r + 1) for r in range(runs)],
    )
    teacher, student = (Network(*map(torch.stack, zip(*some, strict=True))) for some in (teachers, students))
    return teacher, student


def test_a_run_goes_on_where_it_ended_bit_for_bit():
    teacher, student = nets(3, 40)
    whole = simulate(teacher, student, 100, sigma=0.2, seed=5)
    half = simulate(teacher, simulate(teacher, student, 30, sigma=0.2, seed=5), 70, sigma=0.2, seed=5, first=30)
    assert torch.equal(whole.w, half.w) and torch.equal(whole.v, half.v)
    assert whole.w.dtype == torch.float64 and whole.w.shape == (3, 4, 40)
    assert not torch.equal(whole.w, simulate(teacher, student, 100, sigma=0.2, seed=6).w)
    assert not torch.equal(whole.w, simulate(teacher, student, 100, sigma=0.0, seed=5).w)


def test_batches_are_broadcast_and_each_run_has_inputs_of_its_own():
    teacher, student = random_teacher(2, 30, 1.0, 0), random_student(3, 30, 1)
    alone = simulate(teacher, student, 50)
    assert alone.w.shape == (3, 30) and alone.v.shape == (3,)
    batch = Network(student.w.expand(2, 2, 3, 30), student.v.expand(2, 2, 3))
    many = simulate(teacher, batch, 50)
    assert many.w.shape == (2, 2, 3, 30)
    assert torch.equal(many.w[0, 0], alone.w) and not torch.equal(many.w[0, 1], alone.w)


def test_float32_is_as_good_as_float64():
    teacher, student = nets(2, 60, v_star=4.0)
    one, other = (simulate(teacher, student, 6000, dtype=dtype) for dtype in (torch.float32, torch.float64))
    errors = [generalisation_error(order_parameters(net, teacher)) for net in (one, other)]
    torch.testing.assert_close(errors[0], errors[1], rtol=1e-4, atol=0)


def test_bad_arguments_are_named():
    teacher, student = nets(1, 20)
    with pytest.raises(ValueError, match="simulate: teacher must have the student's 20 inputs, got 19"):
        simulate(teacher._replace(w=teacher.w[..., 1:]), student, 1)
    with pytest.raises(ValueError, match="simulate: samples and first must be at least 0, got -1 and 0"):
        simulate(teacher, student, -1)
    with pytest.raises(ValueError, match=r"simulate: student must have w \[\.\.\., H, N\], v \[\.\.\., H\]"):
        simulate(teacher, student._replace(v=student.v[..., :-1]), 1)
    with pytest.raises(ValueError, match=r"sigma too and at least 0, got 0\.5 and -1"):
        simulate(teacher, student, 1, sigma=-1)
    with pytest.raises(ValueError, match=r"dtype must be float32 or float64, got torch\.float16"):
        simulate(teacher, student, 1, dtype=torch.float16)


def test_students_follow_the_odes_by_one_over_root_n():
    """Root-mean-square distance of Q, R, v at t = 2 from the ODEs started at the same point, N = 100 and 1600."""
    gaps = []
    for n in (100, 1600):
        teacher, student = nets(10, n)
        start = order_parameters(student, teacher)
        end = order_parameters(simulate(teacher, student, 2 * n, sigma=0.3), teacher)
        squares = []
        for r in range(10):
            ode = integrate(OrderParameters(*(part[r] for part in start)), [2.0], 0.5, 0.3)
            parts = [(getattr(ode, name)[-1] - getattr(end, name)[r]).flatten() for name in ("Q", "R", "v")]
            squares.append(torch.cat(parts).square().mean())
        gaps.append(float(torch.stack(squares).mean().sqrt()))
    moved = torch.cat([(a - b).flatten() for a, b in zip(end, start, strict=True)])
    assert float(moved.square().mean().sqrt()) > 10 * gaps[-1]
    assert 2 < gaps[0] / gaps[1] < 8, gaps  # 4; 16 were it 1 / N
