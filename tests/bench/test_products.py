"""The benches of products: on tiny cases each runs, finds its results right, and takes a wrong one's ratio away."""

import importlib
import sys
import textwrap

import pytest
import torch

from sparseprune import ops

cases = importlib.import_module("bench.cases")
contest = importlib.import_module("bench.contest")
crossover = importlib.import_module("bench.crossover")
gpu_products = importlib.import_module("bench.gpu_products")
peers = importlib.import_module("bench.peers")
products = importlib.import_module("bench.products")

LINEAR, CONV = cases.Linear(32, 64, 16), cases.Conv(4, 8, 6, batch=3)
STRIDED = cases.Conv(4, 8, 6, stride=2, batch=3)


@pytest.fixture(autouse=True)
def one_call(monkeypatch):
    """What is measured here is not time."""

    def alternate(calls, repeats):
        return {name: [1.0 for _ in range(repeats) if call() is not None] for name, call in calls.items()}

    monkeypatch.setattr(contest, "alternate", alternate)


def check(rows, named):
    assert rows and all(row["agrees"] and row["ratio"] == 1.0 for row in rows)
    assert all(any(peer in row["peer"] for row in rows) for peer in named)


def test_linear():
    rows = products.linear_forward(LINEAR, (0.5, 0.1), 1, None)
    check(rows, ("dense", "torch CSR", "SciPy CSR"))
    assert {row["density"] for row in rows} == {0.5, 0.1} and len(rows) == 6
    check(products.linear_step(LINEAR, (0.5,), 1, None), ("nn.Linear", "by hand"))


@pytest.mark.parametrize("case", [CONV, STRIDED], ids=str)
@pytest.mark.parametrize("work", ["forward", "forward + backward"])
def test_conv(case, work):
    rows = products.conv(case, (0.5,), 1, work, None)
    check(rows, ("dense (",))
    assert [row["case"].rsplit(", ", 1)[1] for row in rows] == ["chained", "all paid"]


def test_mlp():
    check(products.mlp(0.05, 8, 1), ("dense", "masked"))


def test_gpu_cases_run_on_any_device(monkeypatch, capsys):
    monkeypatch.setattr(gpu_products, "ROWS", (5,))
    suites = gpu_products.suites(1, "cpu", (LINEAR,), (CONV,), ((cases.Linear(64, 32, 3), 32),))
    rows = [row for suite in suites for row in suite()]
    check(rows, ("F.linear(x, w * m)", "torch BSR", "dense", "F.conv2d(x, w * m)"))
    assert "left out: torch CSR @ X 0.2 of linear forward, W 32x64, batch 16, bf16" in capsys.readouterr().out


def test_a_wrong_product_gets_no_ratio(monkeypatch):
    right = ops.spmm
    monkeypatch.setattr(ops, "spmm", lambda *arguments: right(*arguments) + 1e-3)
    rows = products.linear_forward(LINEAR, (0.5,), 1, None)
    assert rows and all(row["ratio"] is None and not row["agrees"] for row in rows)


def test_close_is_a_bound_on_rounding():
    x, w = torch.randn(64, 1000), torch.randn(1000, 64)
    exact = x.double() @ w.double()
    assert contest.close(x @ w, exact, 1000) and contest.close(exact.bfloat16(), exact, 1000)
    assert not contest.close(exact + 1e-4 * exact.std(), exact, 1)
    assert not contest.close(exact.flatten(), exact, 1000)
    assert not contest.close(torch.full_like(x, float("nan")), x, 64)


def test_a_curve_its_break_even_and_the_picture(tmp_path):
    module = torch.nn.Linear(8, 4, bias=False)
    rows = crossover.curve("linear", "tiny", module, (3, 8), 1)
    rows += crossover.curve("conv", CONV, torch.nn.Conv2d(4, 8, 3, 1, 1, bias=False), (3, 4, 6, 6), 1)
    check(rows, ("dense",))
    for row in rows:
        row["ratio"] = 0.4 / row["density"]
    crossover.picture(rows, tmp_path / "crossover.png")
    assert (tmp_path / "crossover.png").read_bytes().startswith(b"\x89PNG")
    assert crossover.break_even([(0.1, 4.0), (0.4, 1.0), (1.0, 0.4)]) == pytest.approx(0.4)
    assert crossover.break_even([(0.1, 2.0), (0.4, 0.5)]) == pytest.approx(0.2)
    assert crossover.break_even([(0.1, 0.9), (0.4, 0.5)]) is None
    assert crossover.break_even([(0.1, 3.0), (1.0, 1.5)]) is None


FAKE = """
    import torch


    class SparseLinear(torch.nn.Module):
        def __init__(self, weight, **options):
            super().__init__()
            assert not options or options == {"stride": 2, "padding": 1}
            self.W_val, self.options = torch.nn.Parameter(weight), options

        def forward(self, x):
            print("noise")
            if not self.options:
                return x @ self.W_val.t()
            return torch.nn.functional.conv2d(x, self.W_val, **self.options)


    SparseConv2d = SparseLinear
"""


def test_a_peer_in_another_process(tmp_path, monkeypatch):
    """With a stand-in for SparseProp: requests, results, and times of its own."""
    (tmp_path / "sparseprop").mkdir()
    (tmp_path / "sparseprop" / "__init__.py").touch()
    (tmp_path / "sparseprop" / "modules.py").write_text(textwrap.dedent(FAKE))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    other = peers.sparseprop(sys.executable)
    try:
        w, x, grad = torch.randn(4, 6), torch.randn(3, 6), torch.randn(3, 4)
        call = other.call("linear", w, x, grad)
        torch.testing.assert_close(list(call()), [x @ w.t(), grad @ w, grad.t() @ x])
        images, kernel = torch.randn(2, 3, 5, 5), torch.randn(4, 3, 3, 3)
        conv = other.call("conv2d", kernel, images, None, stride=2, padding=1, batch_last=True)
        wanted = torch.nn.functional.conv2d(images, kernel, None, 2, 1)
        torch.testing.assert_close(list(conv()), [wanted])
        assert 0 < call.seconds() < 60 and 0 < conv.seconds() < 60
    finally:
        other.close()
    assert other._process.returncode == 0


def test_no_sparseprop_is_no_error_unless_it_was_named(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "")
    assert peers.sparseprop(None) is None
    with pytest.raises(ValueError, match=r"SparseProp must be installed where it is said to be, got .* without it"):
        peers.sparseprop(sys.executable)
